"""Approval: versions with a verdict of yes that wait for a person, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from amopo_core.errors import UserError
from tasks import ledger
from tasks.checkpoint import require_loadable
from tasks.pause import Answer, wake
from tasks.registry import DECISION_TAG, MODEL, VERDICT_TAG, Version, by_number, by_verdict, tag
from tasks.settlement import AWAITING, NOBODY, PROMOTED
from tasks.tracking import reaching_mlflow

REJECTED, SUPERSEDED = "rejected", "superseded"
RUN_TAG = "approval_run"
"""Tag of a version: the Prefect flow run that pauses until a person answers."""


def waiting() -> list[Version]:
    """The versions that wait, oldest first."""
    return by_verdict(AWAITING)


def require_waiting(number: str | None) -> Version:
    """The version of that number; without one, the only one that waits.

    Raises:
        UserError: it does not wait, or none or several do.
    """
    found = waiting()
    if number is None:
        if len(found) == 1:
            return found[0]
        which = ", ".join(version.number for version in found)
        raise UserError(f"several versions wait for approval: {which}; name one" if found else _none(None))
    for version in found:
        if version.number == number:
            return version
    raise UserError(_none(by_number(number), number))


def approve(version: Version, *, why: str, by: str) -> str | None:
    """Make a version that waits champion.

    Returns:
        What was found amiss with the alias before; None where all was well.

    Raises:
        UserError: it was compared with another champion than the present one, or could not be served.
        OutsideError: somebody else changed the champion at the same moment.
    """
    state, trouble = ledger.reconcile()
    if state.champion != version.number:  # else: a command was killed between alias and verdict
        _require_same_champion(version, state.champion or NOBODY)
        require_loadable(version)
        ledger.move(version.number, after=state, how="approved", why=why, by=by)
    _end(version, PROMOTED, why, by)
    return trouble


def reject(version: Version, *, why: str, by: str) -> str | None:
    """Let the version wait no longer; the champion stays.

    Returns:
        As `approve`.
    """
    _, trouble = ledger.reconcile()
    _end(version, REJECTED, why, by)
    return trouble


def end_waiting(version: Version, *, why: str, by: str) -> None:
    """What a promotion by hand means for a version that waits: that is its approval."""
    if any(found.number == version.number for found in waiting()):
        _end(version, PROMOTED, why, by)


@task(task_run_name="supersede", cache_policy=NO_CACHE)
def supersede(newer: Version) -> None:
    """Older versions wait no longer: one that is newer has a verdict of yes, too."""
    for version in waiting():
        if int(version.number) < int(newer.number):
            why = f"version {newer.number} is newer, and its verdict is yes too"
            _end(version, SUPERSEDED, why, f"version {newer.number}")
            get_run_logger().info("version %s waited for approval and is superseded: %s", version.number, why)


def question(version: Version, reasons: Sequence[str]) -> str:
    """What a person is asked, in Markdown."""
    listed = "\n".join(f"- {reason}" for reason in reasons)
    return f"Shall version {version.number} of `{MODEL}` become champion? Its verdict is yes:\n\n{listed}"


def take(version: Version, answer: Answer) -> str:
    """The version's verdict after the answer; what was settled while the person was asked stays.

    Raises:
        UserError, OutsideError: as `approve`.
    """
    now = by_number(version.number)
    if now is None or now.tags.get(VERDICT_TAG) != AWAITING:
        return standing(version)
    why, by = answer.reason or "no reason given", answer.name or "somebody on Prefect's page"
    if answer.decision == "approve":
        approve(now, why=why, by=by)
    elif answer.decision == "reject":
        reject(now, why=why, by=by)
    return standing(version)


def standing(version: Version) -> str:
    """The version's verdict as it is written at this moment."""
    found = by_number(version.number)
    return found.tags[VERDICT_TAG] if found else "deleted in MLflow"


def wait_on(version: Version, run_id: str) -> None:
    """Write on the version which flow run pauses for it."""
    with reaching_mlflow():
        tag(version, RUN_TAG, run_id)


def _end(version: Version, verdict: str, why: str, by: str) -> None:
    """The answer, then the verdict, then the flow run that waits for it, if it still does."""
    with reaching_mlflow():
        tag(version, "approval", json.dumps({"verdict": verdict, "why": why, "by": by}, ensure_ascii=False))
        tag(version, VERDICT_TAG, verdict)
    if run_id := version.tags.get(RUN_TAG):
        wake(run_id)


def _require_same_champion(version: Version, champion: str) -> None:
    rival = json.loads(version.tags[DECISION_TAG])["rival"]
    if rival != champion:
        number, whom = version.number, "the base policy" if rival == NOBODY else f"version {rival}"
        raise UserError(
            f"version {number} was found better than {whom}, and version {champion} is champion by now: look at"
            f" `amopo compare {champion} {number}`; then `amopo promote {number} --reason TEXT` or"
            f" `amopo approve {number} --reject --reason TEXT`, or retrain"
        )


def _none(version: Version | None, number: str = "") -> str:
    if version:
        verdict = version.tags.get(VERDICT_TAG, "not decided yet")
        return f"version {version.number} does not wait for approval: its verdict is `{verdict}`"
    return f"there is no version {number}; `amopo status` lists versions" if number else "no version waits for approval"
