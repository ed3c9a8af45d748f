"""One run at a time in a workspace."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tasks.errors import OutsideError

TURN = Path(".amopo/turn")
_held: dict[Path, TextIO] = {}
"""The files that this process holds."""


class Taken(OutsideError):
    """Another process has the turn."""


@contextmanager
def own_turn(wait: Callable[[str], None] | None = None, place: Path = TURN, who: str = "run") -> Iterator[None]:
    """Keeps every other run of this workspace out within the block; the kernel lets go however this process ends.

    Args:
        wait: gets one line that says for whom this one waits; without it, nobody waits.
        place: the file that is held.
        who: what holds it, as a message names it.

    Raises:
        Taken: another one is at work here, and this one does not wait.
    """
    place.parent.mkdir(exist_ok=True)
    with place.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = f"process {file.read().strip() or 'unknown'}"
            if wait is None:
                raise Taken(
                    f"another {who} is at work in this folder ({holder});"
                    " wait until it ends, then run the same command again"
                ) from None
            wait(f"waiting until the {who} of {holder} has ended")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        _held[place] = file
        try:
            yield
        finally:
            del _held[place]


def give_back() -> None:
    """Let others have the turn before the block ends, for what only waits from here on."""
    if file := _held.get(TURN):
        fcntl.flock(file, fcntl.LOCK_UN)
