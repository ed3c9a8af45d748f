"""This workspace's deployment on the Prefect server: registered, asked for runs, tidied of starts that became one."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.flows import Flow
from prefect.schedules import Schedule as PrefectSchedule
from prefect.states import Cancelled, Crashed
from prefect.types.entrypoint import EntrypointType

from amopo_core.errors import UserError
from tasks.last_retraining import SKIPPED
from tasks.operation import OPERATION_FILE, Operation, Schedule

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

EVENT = "amopo.feedback"
"""Name of the event that starts a retraining at once."""
ANY_WORKSPACE = "amopo.feedback"
"""Resource of an event that is meant for every workspace whose server gets it."""
_AT_WORK = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
_SHUT_DOWN = "Runner is shutting down."
"""What Prefect's runner says of a run that it stops at its own end."""
_MISSED_AT_MOST = 100


def deployment_name() -> str:
    """Name of the deployment: the folder's, with a digest of machine and path, so that two clones stay apart."""
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '-', Path.cwd().name)}-{_digest()[:6]}"


def workspace_resource() -> str:
    """The resource of an event that is meant for this workspace alone."""
    return f"amopo.workspace.{_digest()}"


def deployment(flow: Flow[..., Any], operation: Operation) -> RunnerDeployment:
    """The deployment of a flow with one parameter, `reason`: all schedules, and the event that starts it at once.

    Raises:
        UserError: a cron expression or a rule that is none.
    """
    trigger = DeploymentEventTrigger(
        name=f"{EVENT} for {deployment_name()}",
        expect={EVENT},
        match={"prefect.resource.id": [workspace_resource(), ANY_WORKSPACE]},
        parameters={"reason": "the event {{ event.event }} {{ event.payload }}"},
    )
    return RunnerDeployment.from_flow(
        flow,
        name=deployment_name(),
        schedules=[_schedule(each) for each in operation.schedules],
        triggers=[trigger],
        paused=False,
        description=f"Retrainings of the workspace {Path.cwd()}",
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


async def due_runs(client: PrefectClient, deployment_id: UUID) -> list[FlowRun]:
    """Starts whose time has come and that nobody has taken up, the latest first."""
    now = FlowRunFilterExpectedStartTime(before_=datetime.now(UTC))  # type: ignore[arg-type]
    return await _runs(client, deployment_id, [StateType.SCHEDULED], expected=now)


async def runs_at_work(client: PrefectClient, deployment_id: UUID) -> list[FlowRun]:
    """Runs that have been taken up and have not ended."""
    return await _runs(client, deployment_id, _AT_WORK)


async def skip(client: PrefectClient, runs: Iterable[FlowRun], why: str) -> None:
    """End starts that were not taken up, with the reason where people look."""
    for run in runs:
        await client.set_flow_run_state(run.id, Cancelled(name=SKIPPED, message=why))


async def close_left_behind(client: PrefectClient, deployment_id: UUID) -> None:
    """Mark as crashed what a killed server of this deployment left: whoever asks holds the only one there may be."""
    for run in await runs_at_work(client, deployment_id):
        await client.set_flow_run_state(run.id, Crashed(message="the process that served it was killed"), force=True)


async def was_cut_off(client: PrefectClient, deployment_id: UUID) -> bool:
    """Whether the last run that began was ended from outside, by a crash or with the process that served it."""
    begun = [run for run in await _runs(client, deployment_id, None) if run.start_time is not None]
    state = max(begun, key=lambda run: run.start_time or 0).state if begun else None
    return state is not None and (state.is_crashed() or (state.is_cancelled() and state.message == _SHUT_DOWN))


async def ask_for_run(client: PrefectClient, deployment_id: UUID, reason: str) -> None:
    """A start for now."""
    await client.create_flow_run_from_deployment(deployment_id, parameters={"reason": reason})


async def missed(schedules: Sequence[Schedule], since: datetime, until: datetime) -> int:
    """How many starts the schedules had within a time, at most 100 of each counted."""
    from prefect.server.schemas.schedules import CronSchedule, RRuleSchedule

    count = 0
    for each in schedules:
        clock = (
            CronSchedule(cron=each.cron, timezone=each.timezone)
            if each.cron
            else RRuleSchedule(rrule=str(each.rrule), timezone=each.timezone)
        )
        count += len(await clock.get_dates(n=_MISSED_AT_MOST, start=since, end=until))
    return count


def _schedule(schedule: Schedule) -> PrefectSchedule:
    try:
        return PrefectSchedule(
            cron=schedule.cron,
            rrule=schedule.rrule,
            timezone=schedule.timezone,
            parameters={"reason": f"the schedule {schedule}"},
        )
    except ValueError as error:
        raise UserError(f"{OPERATION_FILE}: schedules: {schedule}: {error}") from None


async def _runs(
    client: PrefectClient,
    deployment_id: UUID,
    states: Sequence[StateType] | None,
    expected: FlowRunFilterExpectedStartTime | None = None,
) -> list[FlowRun]:
    chosen = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[deployment_id]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))) if states else None,
        expected_start_time=expected,
    )
    return await client.read_flow_runs(flow_run_filter=chosen, sort=FlowRunSort.EXPECTED_START_TIME_DESC)


def _digest() -> str:
    return sha256(f"{platform.node()}:{Path.cwd().resolve()}".encode()).hexdigest()[:16]
