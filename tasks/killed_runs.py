"""Flow runs at a terminal whose process was killed: Prefect is told, or they would stay `Running` for ever."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelled, Crashed

NOTES = Path(".amopo/flow_runs")
"""A file a run, named after its id: held as long as its process lives, removed when it ends by itself."""
_KILLED = "The process of this run was killed."


@contextmanager
def alive(run: UUID) -> Iterator[None]:
    """Others can tell within the block that the run's process lives; the kernel sees to it."""
    NOTES.mkdir(parents=True, exist_ok=True)
    note = NOTES / str(run)
    with note.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            note.unlink(missing_ok=True)


def is_killed(run_id: str) -> bool:
    """Whether the run was one of this workspace that ended without a word."""
    try:
        with (NOTES / run_id).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError):
        return False
    return True


def close_killed_runs() -> list[str]:
    """Give what was killed its last state in Prefect, and say which runs these were; a server may be away."""
    killed = [note.name for note in sorted(NOTES.glob("*")) if is_killed(note.name)]
    return [said for run_id in killed if (said := _closed(run_id))]


def _closed(run_id: str) -> str | None:
    said = None
    try:
        with get_client(sync_client=True) as client:
            run = client.read_flow_run(UUID(run_id))
            if run.state is not None and not run.state.is_final():
                end = Cancelled if run.state.is_cancelling() else Crashed
                last: State[Any] = end(message=_KILLED)
                client.set_flow_run_state(run.id, last, force=True)
                said = f"the flow run {run.name} was killed: its state in Prefect is {last.name} now"
    except ObjectNotFound:
        pass  # another server's
    except (httpx.HTTPError, PrefectHTTPStatusError):
        return None
    (NOTES / run_id).unlink(missing_ok=True)
    return said
