"""The verdict: what the stages measured, handed to the library's comparison and decision, and written down."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from amopo_core.atomic import write_json
from amopo_core.errors import UserError
from amopo_core.evaluation.comparison import Comparison, compare
from amopo_core.evaluation.guardrails import BASE, CHAMPION, guardrail_numbers, read_guardrails
from amopo_core.evaluation.health import health
from amopo_core.evaluation.measurement import read_measurement
from amopo_core.params_file import read_params
from amopo_core.promotion import Evidence, Verdict, decide
from tasks.tracking import EVALUATION, GUARDRAILS

CHAMPION_EVALUATION = Path("reports/evaluate_champion")
DECISION = Path("reports/decision.json")
"""The last verdict, with everything that it rests on."""


@dataclass(frozen=True)
class Measured:
    """The candidate beside what there was before."""

    against_base: Comparison
    against_champion: Comparison | None
    """None on a first run, which the base policy decides."""
    evidence: Evidence
    """What a promotion rests on."""

    @property
    def incumbent(self) -> str:
        """Who is to be beaten."""
        return self.evidence.guardrails.incumbent


@task(task_run_name="compare", cache_policy=NO_CACHE)
def compare_candidate(*, has_champion: bool) -> Measured:
    """The candidate against the base policy and, where there is one, the champion.

    Raises:
        UserError: the stages measured against another incumbent.
    """
    params, guardrails = read_params(), read_guardrails(GUARDRAILS)
    if guardrails.incumbent != (CHAMPION if has_champion else BASE):
        raise UserError(f"{GUARDRAILS} holds the candidate against the {guardrails.incumbent}; run `dvc repro`")
    candidate, base = read_measurement(EVALUATION / "candidate.jsonl"), read_measurement(EVALUATION / "base.jsonl")
    against_base = compare(base, candidate, params)
    champion = read_measurement(CHAMPION_EVALUATION / "champion.jsonl") if has_champion else None
    against_champion = compare(champion, candidate, params) if champion else None
    evidence = Evidence(
        against_champion or against_base, health((champion or base).answers), health(candidate.answers), guardrails
    )
    return Measured(against_base, against_champion, evidence)


@task(task_run_name="decide", cache_policy=NO_CACHE)
def decide_promotion(measured: Measured, candidate: str, champion: str | None) -> Verdict:
    """Whether the candidate becomes champion, and why; also written to reports/decision.json.

    Args:
        measured: what there is to decide by.
        candidate: its version's number.
        champion: the number of the version to be beaten; None: the base policy is.
    """
    params = read_params()
    verdict = decide(measured.evidence, params.promotion, list(params.dimensions))
    log = get_run_logger()
    log.info("%s, compared with the %s", "promote" if verdict.promote else "do not promote", measured.incumbent)
    for reason in verdict.reasons:
        log.info("- %s", reason)
    write_json(DECISION, {"candidate": candidate, "champion": champion, **decision_record(measured, verdict)})
    return verdict


def decision_record(measured: Measured, verdict: Verdict) -> dict[str, Any]:
    """A verdict with everything that it rests on, in JSON's types."""
    evidence = measured.evidence
    return {
        "promote": verdict.promote,
        "incumbent": measured.incumbent,
        "conditions": [asdict(condition) for condition in verdict.conditions],
        "reasons": list(verdict.reasons),
        "against_base": comparison_numbers(measured.against_base),
        "against_champion": comparison_numbers(measured.against_champion) if measured.against_champion else None,
        "answers": {"incumbent": asdict(evidence.incumbent), "candidate": asdict(evidence.candidate)},
        "guardrails": guardrail_numbers(evidence.guardrails),
    }


def comparison_numbers(comparison: Comparison) -> dict[str, Any]:
    """Means and intervals of both sides and of their difference, by dimension; None where not measured."""
    return {name: contrast and asdict(contrast) for name, contrast in comparison.rows.items()}
