"""When the last retraining of this workspace began, and whether it came to its end: who starts one asks this first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from amopo_core.atomic import write_json

NOTE = Path(".amopo/last_retraining.json")
SKIPPED = "Skipped"
"""Name of the state in Prefect of a start that another one stands for."""


@dataclass(frozen=True)
class LastRetraining:
    """What the workspace remembers of it."""

    began: float
    """Seconds since 1970, before it looked for feedback: whatever was there at that time, it took in."""
    ended: bool
    """False where it failed, was stopped or was killed: the next one goes on from there."""

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
    write_json(NOTE, asdict(LastRetraining(began, ended=False)))
    yield
    write_json(NOTE, asdict(LastRetraining(began, ended=True)))
