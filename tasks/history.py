"""Follows history.jsonl while training writes it and hands on what is new; what is refused is offered again."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tasks.address import quoted

log = logging.getLogger(__name__)

Row = Mapping[str, float]
"""One line of the history: `step`, and numbers by name."""

EVERY = 2.0
"""Time between two looks at the file [seconds]."""

BATCH = 1000
"""Numbers that are handed on at a time, at most: as many as MLflow takes in one call."""


class HistoryFollower:
    """Hands new rows of a history to `send` from a thread of its own, for as long as the `with` block lasts."""

    def __init__(self, path: Path, send: Callable[[Sequence[Row]], None]) -> None:
        self.path = path
        self.send = send
        self.sent = 0
        """Rows that `send` has taken."""
        self._earlier = _stamp(path)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="history", daemon=True)

    def __enter__(self) -> HistoryFollower:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._ended.wait(EVERY):
            self._hand_on()
        self._hand_on()

    def _hand_on(self) -> None:
        rows, before = self._new_rows(), self.sent
        try:
            for batch in batches(rows):
                self.send(batch)
                self.sent += len(batch)
        except Exception as error:  # whatever fails at the other end, training goes on and the rows stay in the file
            waiting = len(rows) - (self.sent - before)
            said = quoted(error, os.environ.get("MLFLOW_TRACKING_URI", ""), 160)
            log.warning("%d lines of the training history wait to be sent: %s", waiting, said)

    def _new_rows(self) -> Sequence[Row]:
        if _stamp(self.path) in (None, self._earlier):
            return []  # nothing yet, or what an earlier training left there
        return read_history(self.path)[self.sent :]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes with a file, whatever the clock says: a file's time lags behind it by some milliseconds."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def batches(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """The rows in order, as many together as hold `BATCH` numbers at most: what is refused is refused as a whole."""
    start, numbers = 0, 0
    for place, row in enumerate(rows):
        if numbers + len(row) > BATCH and place > start:
            yield rows[start:place]
            start, numbers = place, 0
        numbers += len(row)
    if rows:
        yield rows[start:]


def read_history(path: Path) -> list[Row]:
    """The whole lines of a history; one that is still being written is left for later."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]
