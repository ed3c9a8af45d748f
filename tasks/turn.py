"""One run at a time in a workspace."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tasks.errors import OutsideError

TURN = Path(".amopo/turn")
_held: dict[Path, TextIO] = {}
"""The lock file while this process has the turn."""


@contextmanager
def own_turn() -> Iterator[None]:
    """Keeps every other run of this workspace out within the block; the kernel lets go however this process ends.

    Raises:
        OutsideError: another run is at work here.
    """
    TURN.parent.mkdir(exist_ok=True)
    with TURN.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise OutsideError(
                f"another run is at work in this folder (process {file.read().strip() or 'unknown'});"
                " wait until it ends, then run the same command again"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        _held[TURN] = file
        try:
            yield
        finally:
            del _held[TURN]


def give_back() -> None:
    """Let others have the turn before the block ends, for what only waits from here on."""
    if file := _held.get(TURN):
        fcntl.flock(file, fcntl.LOCK_UN)
