"""Locks on files, which the kernel lets go of however their process ends."""

from __future__ import annotations

import fcntl
import time
from typing import TextIO

LOOK = 0.1
"""Time between two looks at a lock that another process holds [seconds]."""


def lock(file: TextIO) -> bool:
    """Whether this process has the file alone, until it is closed; it does not wait."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(file: TextIO) -> None:
    """Come back once this process has the file alone; a wait in the kernel hears no Ctrl-C where polars handles it."""
    while not lock(file):
        time.sleep(LOOK)
