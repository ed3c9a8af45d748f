"""Feedback that comes while a run is at work: it waits in the inbox, since the run's data must not change under it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from filecmp import cmp
from pathlib import Path

from tasks.inbox import INBOX
from tasks.turn import INGEST, Taken, own_turn


@contextmanager
def turn_to_ingest() -> Iterator[bool]:
    """Whether feedback may change within the block: no run is at work, and whatever would begin waits for its end."""
    with ExitStack() as stack:
        is_mine = True
        try:
            stack.enter_context(own_turn(who=INGEST))
        except Taken:
            is_mine = False
        yield is_mine


def lay_in(files: Iterable[Path], source: str) -> list[Path]:
    """Copies of the files in the source's inbox, which the next run takes; a file that waits already is not doubled."""
    return [_laid(file, INBOX / source) for file in files]


def _laid(file: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    place, number = folder / file.name, 1
    while place.exists() and not cmp(file, place, shallow=False):
        number += 1
        place = folder / f"{number}-{file.name}"
    if not place.exists():
        beside = place.with_name(f"{place.name}.new")
        shutil.copyfile(file, beside)
        beside.rename(place)
    return place
