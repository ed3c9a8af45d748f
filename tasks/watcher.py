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
    """Decides, look by look. The same feedback is asked for once, then again only after `max_hours`. Where what was
    asked for failed, nothing is asked for within `max_hours`, or an hour without it: it would fail again."""

    def __init__(self, watch: Watch, now: float) -> None:
        self._watch = watch
        self._began = now
        self._asked: tuple[object, float] | None = None
        self._growing_since: float | None = None
        self._patience = _HOUR if watch.max_hours is None else watch.max_hours * _HOUR

    def reason(
        self, waiting: Waiting, now: float, last_began: float | None, *, last_failed: bool = False
    ) -> str | None:
        """Why a retraining is to start now; None where none is.

        Args:
            waiting: what the look found.
            now: seconds since 1970.
            last_began: when the last retraining began; None before the first.
            last_failed: whether it ended before its end: what it took is in the inbox no more, and not trained on yet.
        """
        self._began = min(self._began, now)  # the clock may have been set back: nothing began in the future
        began = last_began if last_began is not None and last_began <= now else self._began
        since = self._since(waiting, now)
        if self._holds_back(waiting, now) or self._was_asked_for(waiting, now, last_began, last_failed=last_failed):
            return None
        reason = self._reason(waiting, now - since, now - began)
        if reason is None and last_failed and now - began >= self._patience:
            reason = f"the last retraining, which began {duration(now - began)} ago, did not come to its end"
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
        if waiting.growing:
            return f"{', '.join(waiting.growing)}: written to for {duration(self._patience)} without an end"
        if waiting.uncounted and idle >= watch.max_hours * _HOUR:
            names = ", ".join(waiting.uncounted)
            return f"{duration(idle)} without a retraining, and no count of what is new in {names}"
        return None

    def _holds_back(self, waiting: Waiting, now: float) -> bool:
        """Whether somebody is writing, and for no longer than patience lasts."""
        if not waiting.growing:
            self._growing_since = None
            return False
        self._growing_since = now if self._growing_since is None else min(self._growing_since, now)
        return now - self._growing_since < self._patience

    def _was_asked_for(self, waiting: Waiting, now: float, last_began: float | None, *, last_failed: bool) -> bool:
        if self._asked is None:
            return False
        picture, asked = self._asked
        if picture == waiting.picture:
            self._asked = picture, (asked := min(asked, now))
        if last_failed or last_began is None or last_began < asked:  # what was asked for failed, maybe as it began
            return now - asked < self._patience
        return picture == waiting.picture and (self._watch.max_hours is None or now - asked < self._patience)

    def _since(self, waiting: Waiting, now: float) -> float:
        """Since when there have been rows: the inbox's files say it themselves, of other rows it is remembered."""
        if not waiting.rows:
            if not waiting.growing:
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
