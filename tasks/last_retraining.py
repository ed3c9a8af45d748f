"""When the last retraining of this workspace began, and whether it came to its end: who starts one asks this first."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from amopo_core.atomic import write_json

NOTE = Path(".amopo/last_retraining.json")
SKIPPED = "Skipped"
"""Name of the state in Prefect of a start that another one stands for."""
_own: list[float] = []
"""When the retraining of this process began, as long as its end is not noted."""


@dataclass(frozen=True)
class LastRetraining:
    """What the workspace remembers of it."""

    began: float
    """Seconds since 1970, before it looked for feedback: whatever was there at that time, it took in."""
    ended: bool
    """False where it is at work, failed, was stopped or was killed: then the next one goes on from there."""
    process: int | None = None
    """Id of the process that it is, or was, the work of."""

    @property
    def failed(self) -> bool:
        """Whether it did not come to its end, and is not at work any more."""
        return not self.ended and not _works_here(self.process)

    @property
    def moment(self) -> str:
        """When it began, in words."""
        return f"{datetime.fromtimestamp(self.began, UTC):%Y-%m-%d %H:%M:%S} UTC"


def last_retraining() -> LastRetraining | None:
    """The newest retraining that began here; None before the first, or where its note is damaged."""
    try:
        return LastRetraining(**json.loads(NOTE.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


@contextmanager
def noted() -> Iterator[None]:
    """Notes that a retraining began, and, where the block ends well, that it came to its end. A decorator as well."""
    began = datetime.now(UTC).timestamp()
    write_json(NOTE, asdict(LastRetraining(began, ended=False, process=os.getpid())))
    _own[:] = [began]
    yield
    note_end()


def note_end() -> None:
    """Notes that the retraining of this process came to its end; called early where it then only waits for a person.

    Called again, it does nothing; nor where a newer retraining began here, whose note it is by now.
    """
    last = last_retraining()
    if last and _own == [last.began]:
        write_json(NOTE, asdict(LastRetraining(last.began, ended=True, process=last.process)))
    _own.clear()


def _works_here(process: int | None) -> bool:
    """Whether there is a process of that id that works in this folder: an id is given anew at some time."""
    try:
        return process is not None and Path(psutil.Process(process).cwd()) == Path.cwd()
    except psutil.Error:
        return False
