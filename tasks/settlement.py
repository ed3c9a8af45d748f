"""What becomes of a candidate: whom it has to beat, the verdict on it, and the champion's alias where it is a yes."""

from __future__ import annotations

import json

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from amopo_core.promotion import Verdict
from tasks import approval, ledger
from tasks.errors import OutsideError
from tasks.registry import DECISION_TAG, VERDICT_TAG, Version, by_number, tag
from tasks.standing import AWAITING, NOBODY, NOT_PROMOTED, NOT_YET, PROMOTED, TOLD_TAG
from tasks.tracking import reaching_mlflow


def rival_of(candidate: Version | None) -> Version | None:
    """Whom the candidate has to beat: the champion; for one that is champion itself, whom it replaced.

    The ledger says who that is, so a champion whose alias was lost is still the one to beat; one to whom somebody has
    just moved the alias is written down first.
    """
    champions = ledger.reconcile()[0].champions
    if candidate and champions[-1:] == [candidate.number]:
        champions.pop()
    return next((found for number in reversed(champions) if (found := by_number(number))), None)


def decision_on(version: Version, rival: Version | None) -> Verdict | None:
    """The verdict that a stopped run left on the version; None where there is none against this rival."""
    decision = json.loads(version.tags.get(DECISION_TAG, "null"))
    if decision is None or decision["rival"] != number_of(rival):
        return None
    return Verdict(decision["promote"], tuple(decision["reasons"]))


def number_of(version: Version | None) -> str:
    """The version's number, also of none."""
    return version.number if version else NOBODY


@task(task_run_name="check-champion", cache_policy=NO_CACHE)
def check_champion() -> None:
    """Complete what a killed command left of a promotion, and say where the alias was changed outside this program."""
    _, trouble = ledger.reconcile()
    if trouble:
        get_run_logger().warning("%s", trouble)


@task(task_run_name="settle", cache_policy=NO_CACHE)
def settle(version: Version, verdict: Verdict, rival: Version | None, *, needs_approval: bool = False) -> str:
    """Do as the verdict says and write it on the version; wherever this stops, the same call again completes it.

    The decision is written first and in one piece: with it, a later run goes on from the same verdict and rival. Older
    versions wait for a person until a yes has had its effect.

    Args:
        version: the candidate.
        verdict: whether it becomes champion.
        rival: whom it was compared with.
        needs_approval: a yes only makes it wait for a person.

    Returns:
        The verdict as it is written on the version: `PROMOTED`, `NOT_PROMOTED` or `AWAITING`.

    Raises:
        OutsideError: the champion has changed since the comparison.
    """
    with reaching_mlflow():
        decision = {"promote": verdict.promote, "rival": number_of(rival), "reasons": verdict.reasons}
        tag(version, DECISION_TAG, json.dumps(decision))
        written = NOT_PROMOTED
        if verdict.promote:
            written = _promote(version, verdict, rival, needs_approval=needs_approval)
            for line in approval.supersede(version):
                get_run_logger().info("%s", line)
        tag(version, TOLD_TAG, NOT_YET)
        tag(version, "reasons", "\n".join(verdict.reasons))
        tag(version, VERDICT_TAG, written)
    return written


def _promote(version: Version, verdict: Verdict, rival: Version | None, *, needs_approval: bool) -> str:
    state, trouble = ledger.reconcile()
    if trouble:
        get_run_logger().warning("%s", trouble)
    if state.champion == version.number:  # as a stopped run left it
        return PROMOTED
    if rival_of(version) != rival:
        raise OutsideError(
            f"version {version.number} was compared with version {number_of(rival)}, and version {state.champion} is"
            " champion by now; run `amopo retrain` again: nothing is trained again, the comparison is"
        )
    if needs_approval:
        return AWAITING
    why = "; ".join(sorted(verdict.reasons, key=lambda reason: not reason.startswith("overall")))
    ledger.move(version.number, after=state, how="promoted", why=why, by=f"flow run {flow_run.name}")
    get_run_logger().info("%s is champion now", version.uri)
    return PROMOTED
