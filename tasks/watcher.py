"""When feedback that waits starts a retraining: enough rows, or long enough, and nobody is still writing."""

from __future__ import annotations

import json
from pathlib import Path

from amopo_core.atomic import write_json
from amopo_core.units import duration
from tasks.new_feedback import Waiting
from tasks.operation import Watch

SINCE = Path(".amopo/waiting_since.json")
"""Since when rows have waited: it outlives the process that saw them first."""
_HOUR = 3600.0


class Watcher:
    """Decides, look by look. The same feedback is asked for once, then again only after `max_hours`: a run that failed
    on it would fail again."""

    def __init__(self, watch: Watch, now: float) -> None:
        self._watch = watch
        self._began = now
        self._asked: tuple[object, float] | None = None

    def reason(self, waiting: Waiting, now: float, last_began: float | None) -> str | None:
        """Why a retraining is to start now; None where none is.

        Args:
            waiting: what the look found.
            now: seconds since 1970.
            last_began: when the last retraining began; None before the first.
        """
        self._began = min(self._began, now)  # the clock may have been set back: nothing began in the future
        began = last_began if last_began is not None and last_began <= now else self._began
        since = self._since(waiting, now)
        if waiting.growing or self._was_asked_for(waiting, now):
            return None
        reason = self._reason(waiting, now - since, now - began)
        if reason:
            self._asked = (waiting.picture, now)
        return reason

    def _reason(self, waiting: Waiting, waited: float, idle: float) -> str | None:
        watch = self._watch
        if watch.min_rows is not None and waiting.rows >= watch.min_rows:
            return f"{waiting.rows} new rows, at least {watch.min_rows} asked for"
        if watch.max_hours is None:
            return None
        if waiting.rows and waited >= watch.max_hours * _HOUR:
            return f"{waiting.rows} new rows, the first of them waiting for {duration(waited)}"
        if waiting.uncounted and idle >= watch.max_hours * _HOUR:
            names = ", ".join(waiting.uncounted)
            return f"{duration(idle)} without a retraining, and no count of what is new in {names}"
        return None

    def _was_asked_for(self, waiting: Waiting, now: float) -> bool:
        if self._asked is None or self._asked[0] != waiting.picture:
            return False
        self._asked = (waiting.picture, min(self._asked[1], now))
        return self._watch.max_hours is None or now - self._asked[1] < self._watch.max_hours * _HOUR

    def _since(self, waiting: Waiting, now: float) -> float:
        """Since when there have been rows: the inbox's files say it themselves, of other rows it is remembered."""
        if waiting.growing:
            return now
        if not waiting.rows:
            SINCE.unlink(missing_ok=True)
            return now
        remembered = _remembered()
        since = min(moment for moment in (now, remembered, waiting.oldest) if moment is not None)
        if since != remembered:
            write_json(SINCE, since)
        return since


def _remembered() -> float | None:
    try:
        return float(json.loads(SINCE.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
