"""The Prefect event that starts a retraining at once."""

from __future__ import annotations

from typing import Any

from prefect.client.orchestration import get_client
from prefect.events import Event, get_events_client
from prefect.events.schemas.events import Resource
from prefect.exceptions import ObjectNotFound

from tasks.deployment import EVENT, deployment_name, workspace_resource
from tasks.errors import OutsideError

FLOW = "retrain"


async def emit(reason: str) -> dict[str, Any]:
    """Send the event for this workspace; what was sent.

    Raises:
        OutsideError: nobody serves this workspace, so that nothing would come of it.
    """
    async with get_client() as client:
        try:
            served = await client.read_deployment_by_name(f"{FLOW}/{deployment_name()}")
        except ObjectNotFound:
            served = None
    if served is None or served.paused:
        raise OutsideError("nobody serves this folder, so nothing would come of it; start `amopo serve` or `amopo up`")
    resource = Resource({"prefect.resource.id": workspace_resource(), "prefect.resource.name": deployment_name()})
    event = Event(event=EVENT, resource=resource, payload={"reason": reason})
    async with get_events_client(checkpoint_every=1) as events:
        await events.emit(event)
    return {"event": event.event, "resource": workspace_resource(), "id": str(event.id), "payload": event.payload}
