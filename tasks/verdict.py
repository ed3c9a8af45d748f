"""The verdict: what the stages measured, handed to the library's comparison and decision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from amopo_core.evaluation.comparison import Comparison, compare
from amopo_core.evaluation.measurement import read_measurement
from amopo_core.params_file import read_params
from amopo_core.promotion import Verdict, decide

EVALUATION = Path("reports/evaluate")
CHAMPION_EVALUATION = Path("reports/evaluate_champion")


@dataclass(frozen=True)
class Measured:
    """The candidate beside what there was before."""

    against_base: Comparison
    against_champion: Comparison | None
    """None on a first run, which the base policy decides."""

    @property
    def deciding(self) -> Comparison:
        """The comparison that a promotion rests on."""
        return self.against_champion or self.against_base

    @property
    def incumbent(self) -> str:
        """Who is to be beaten."""
        return "champion" if self.against_champion else "base"


@task(task_run_name="compare", cache_policy=NO_CACHE)
def compare_candidate(*, has_champion: bool) -> Measured:
    """The candidate against the base policy and, where there is one, the champion."""
    params = read_params()
    candidate = read_measurement(EVALUATION / "candidate.jsonl")
    against_base = compare(read_measurement(EVALUATION / "base.jsonl"), candidate, params)
    if not has_champion:
        return Measured(against_base, None)
    champion = read_measurement(CHAMPION_EVALUATION / "champion.jsonl")
    return Measured(against_base, compare(champion, candidate, params))


@task(task_run_name="decide", cache_policy=NO_CACHE)
def decide_promotion(measured: Measured) -> Verdict:
    """Whether the candidate becomes champion, and why."""
    params = read_params()
    verdict = decide(measured.deciding, params.promotion, list(params.dimensions))
    log = get_run_logger()
    log.info("%s, compared with the %s", "promote" if verdict.promote else "do not promote", measured.incumbent)
    for reason in verdict.reasons:
        log.info("- %s", reason)
    return verdict
