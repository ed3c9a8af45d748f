"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    status: Status
    """`wrong`: training would fail or go wrong; `warn`: it would be slow, or something is not there yet."""
    said: str
    """What was found."""
    mend: str = ""
    """What to do about it; empty where nothing is to be done."""

    def line(self, topic: str) -> str:
        """The finding as a person reads it."""
        mend = f"; {self.mend}" if self.mend else ""
        return f"{self.status:<5}  {topic:<10}  {self.said}{mend}"


def ok(said: str) -> Finding:
    """All is well."""
    return Finding("ok", said)


def warn(said: str, mend: str) -> Finding:
    """It works, but."""
    return Finding("warn", said, mend)


def wrong(said: str, mend: str = "") -> Finding:
    """It does not work."""
    return Finding("wrong", said, mend)
