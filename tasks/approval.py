"""Approval: versions with a verdict of yes that wait for a person, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from amopo_core.errors import UserError
from tasks import ledger
from tasks.checkpoint import require_loadable
from tasks.pause import Answer, wake
from tasks.registry import DECISION_TAG, MODEL, VERDICT_TAG, Version, by_number, by_verdict, named, tag
from tasks.standing import AWAITING, NOBODY, PROMOTED, REJECTED, SUPERSEDED, TOLD, TOLD_TAG
from tasks.tracking import reaching_mlflow

RUN_TAG = "approval_run"
"""Tag of a version: the Prefect flow run that pauses until a person answers."""


def waiting() -> list[Version]:
    """The versions that wait, oldest first."""
    return by_verdict(AWAITING)


def require_waiting(name: str | None) -> Version:
    """The version of that number or alias; without one, the only one that waits.

    Raises:
        UserError: it does not wait, or none or several do.
    """
    found = waiting()
    if name is None:
        if len(found) == 1:
            return found[0]
        which = ", ".join(version.number for version in found)
        raise UserError(
            f"several versions wait for approval: {which}; name one" if found else "no version waits for approval"
        )
    version = named(name)
    if version.number not in {each.number for each in found}:
        verdict = version.tags.get(VERDICT_TAG, "not decided yet")
        raise UserError(f"version {version.number} does not wait for approval: its verdict is `{verdict}`")
    return version


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


def end_waiting(version: Version, *, why: str, by: str) -> bool:
    """What a promotion by hand means for a version that waits: that is its approval. Whether it did wait."""
    waits = any(found.number == version.number for found in waiting())
    if waits:
        _end(version, PROMOTED, why, by)
    return waits


def supersede(newer: Version) -> list[str]:
    """Older versions wait no longer: one that is newer has a verdict of yes, too. A line for each.

    One that is or was champion does not wait: the command that promoted it was killed before it could say so.
    """
    said, champions = [], {entry.version for entry in ledger.read().entries}
    for version in waiting():
        if int(version.number) >= int(newer.number):
            continue
        if version.number in champions:
            _end(version, PROMOTED, "it became champion (see `amopo history`)", f"version {newer.number}")
        else:
            why = f"version {newer.number} is newer, and its verdict is yes too"
            _end(version, SUPERSEDED, why, f"version {newer.number}")
            said.append(f"version {version.number} waited for approval and is superseded: {why}")
    return said


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
        tag(version, TOLD_TAG, TOLD)  # by the command, or of the newer version
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
