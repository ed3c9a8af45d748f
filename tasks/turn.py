"""One run at a time in a workspace."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from amopo_core.locks import LOOK, lock, wait_for_lock
from tasks.errors import OutsideError

TURN = Path(".amopo/turn")
INGEST = "amopo ingest"
"""Who has the turn for so short a time that everybody waits for its end."""
_held: dict[Path, TextIO] = {}
"""The files that this process holds."""
_UNKNOWN = "unknown"


class Taken(OutsideError):
    """Another process has the turn."""


@contextmanager
def own_turn(wait: Callable[[str], None] | None = None, place: Path = TURN, who: str = "run") -> Iterator[None]:
    """Keeps every other run of this workspace out within the block; the kernel lets go however this process ends.

    Args:
        wait: gets one line that says for whom this one waits; without it, nobody waits for a run.
        place: the file that is held.
        who: what holds it, as a message to others names it.

    Raises:
        Taken: another one is at work here, and this one does not wait.
    """
    place.parent.mkdir(exist_ok=True)
    with place.open("a+", encoding="utf-8") as file:
        if not lock(file):
            _wait_for_ingest(file, wait or _say)
        if not lock(file):
            process, holder = _holder(file)
            if wait is None:
                raise Taken(
                    f"another {holder} is at work in this folder (process {process});"
                    " wait until it ends, then run the same command again"
                )
            wait(f"waiting until the {holder} of process {process} has ended")
            wait_for_lock(file)
        file.truncate(0)
        file.write(f"{os.getpid()} {who}")
        file.flush()
        _held[place] = file
        try:
            yield
        finally:
            _let_go(place)


def give_back() -> None:
    """Let others have the turn before the block ends, for what only waits from here on."""
    _let_go(TURN)


def _let_go(place: Path) -> None:
    """Without a name in it: between two holders the file says nothing of either."""
    if file := _held.pop(place, None):
        file.truncate(0)
        fcntl.flock(file, fcntl.LOCK_UN)


def _wait_for_ingest(file: TextIO, say: Callable[[str], None]) -> None:
    """Come back when the file is locked by this process, or held by anything but an ingest."""
    is_said, nameless = False, 50
    while not lock(file):
        process, holder = _holder(file)
        if process == _UNKNOWN and nameless:  # it changes hands at this moment
            nameless -= 1
        elif holder != INGEST:
            return
        elif not is_said:
            say(f"waiting until the {holder} of process {process} has ended")
            is_said = True
        time.sleep(LOOK)


def _holder(file: TextIO) -> tuple[str, str]:
    """The holder's process id, and what it is."""
    read = os.pread(file.fileno(), 100, 0)  # past the buffer, which may hold what was there at the look before
    process, _, who = read.decode().partition(" ")
    return process or _UNKNOWN, who or "run"


def _say(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201 (a command that waits for nobody has no other way to say that it does)
