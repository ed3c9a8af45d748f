"""What a run cost this machine: its time, and the memory of its largest process."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass

STARTED = time.monotonic()
"""When the command line began; this module is imported first of all."""


@dataclass(frozen=True)
class Usage:
    """Wall-clock time and memory up to now."""

    seconds: float
    largest_process: int
    """Peak resident memory of the largest process, this one or any that it started and that has ended [bytes]."""

    def __str__(self) -> str:
        minutes, seconds = divmod(round(self.seconds), 60)
        return f"{minutes} min {seconds} s, largest process {self.largest_process / 1e9:.2f} GB"


def usage() -> Usage:
    """What was used since the command began."""
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    unit = 1 if sys.platform == "darwin" else 1024
    return Usage(time.monotonic() - STARTED, max(peaks) * unit)
