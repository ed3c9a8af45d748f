"""Prefect's pause: a flow run that waits for a person's answer to a form on its page, and stands in nobody's way."""

from __future__ import annotations

import math
import os
import time
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Literal
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import FlowPauseTimeout, PrefectException
from prefect.flow_runs import pause_flow_run, resume_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment, flow_run
from prefect.settings import PREFECT_API_URL
from pydantic import Field

from amopo_core.errors import UserError
from tasks.address import quoted
from tasks.killed_runs import close_killed_runs, is_killed

HOURS = "AMOPO_APPROVAL_HOURS"
_DEFAULT_HOURS = 24.0
_POLL = 5
"""Time between two looks for the answer [seconds]."""
_SPARE = 600
"""Time by which Prefect's own limit is longer: a run that passes it counts as failed, and nothing failed [seconds]."""


class Answer(RunInput):
    """What a person says of a version that waits."""

    decision: Literal["approve", "reject", "later"] = Field(
        default="later", description="later: this run ends, and the version goes on waiting for `amopo approve`"
    )
    reason: str = Field(default="", description="Why; it is written into the ledger")
    name: str = Field(default="", description="Your name; it is written into the ledger")


def limit() -> float:
    """How long a run waits for a person, from AMOPO_APPROVAL_HOURS [hours].

    Raises:
        UserError: it is no number above 0.
    """
    text = os.environ.get(HOURS) or str(_DEFAULT_HOURS)
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not (0 < hours <= 24 * 365):
        raise UserError(f"{HOURS} is {text!r}; expected the hours that a run waits for a person, such as 24 or 0.5")
    return hours


def ask(description: str) -> Answer:
    """The answer to the form on this flow run's page.

    `later` where none came within the limit, where the next run of the deployment is due, which a served run would keep
    from starting, or where Prefect is gone.

    Args:
        description: what the page says above the form, in Markdown.
    """
    seconds, over = limit() * 3600, Event()
    Thread(target=_end_in_time, args=(str(flow_run.id), deployment.id, seconds, over), daemon=True).start()
    try:
        form = Answer.with_initial_data(description=description)
        return pause_flow_run(wait_for_input=form, timeout=math.ceil(seconds) + _SPARE, poll_interval=_POLL)
    except FlowPauseTimeout:
        return Answer()
    except httpx.HTTPError as error:
        said = quoted(error, PREFECT_API_URL.value() or "", 160)
        get_run_logger().warning("Prefect's server does not answer any more (%s): nobody is waited for", said)
        return Answer()
    finally:
        over.set()


def is_due(deployment_id: str | None) -> bool:
    """Whether a run of the deployment should have begun by now; False for a run that belongs to none."""
    if deployment_id is None:
        return False
    late = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[UUID(deployment_id)]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),  # type: ignore[arg-type]
    )
    try:
        with get_client(sync_client=True) as client:
            return bool(client.read_flow_runs(flow_run_filter=late, limit=1))
    except httpx.HTTPError:
        return False


def wake(run_id: str) -> bool:
    """End the pause of a flow run without an answer; False where it does not pause or no server knows it.

    One whose process was killed while it paused would be `Running` for ever after: it is closed.
    """
    if not PREFECT_API_URL.value():
        return False
    if is_killed(run_id):
        close_killed_runs()
        return False
    try:
        resume_flow_run(UUID(run_id), run_input={"decision": "later"})
    except (PrefectException, RuntimeError, httpx.HTTPError):
        return False
    return True


def _end_in_time(run_id: str, deployment_id: str | None, seconds: float, over: Event) -> None:
    """End the pause when its time is up, or when somebody else's has come."""
    deadline = time.monotonic() + seconds
    while not over.wait(min(_POLL, max(1.0, deadline - time.monotonic()))):
        if (time.monotonic() >= deadline or is_due(deployment_id)) and wake(run_id):
            return
