"""Whether a candidate becomes champion: a pure decision with its reasons."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from amopo_core.config import Promotion
from amopo_core.errors import UserError
from amopo_core.evaluation.bootstrap import Interval
from amopo_core.evaluation.comparison import REWARD_ACCURACY, Comparison, Contrast
from amopo_core.evaluation.guardrails import BASE, CHAMPION, Guardrails
from amopo_core.evaluation.health import Health


@dataclass(frozen=True)
class Condition:
    """One condition of a promotion, and what came."""

    name: str
    """What it is about: `prompts`, `overall`, `dimension/NAME`, `length`, `repetition`, `kl/NAME`, `regression`."""
    holds: bool
    text: str


@dataclass(frozen=True)
class Evidence:
    """All that a decision rests on."""

    comparison: Comparison
    """The candidate against the incumbent: the champion; the base policy where there is no champion."""
    incumbent: Health
    """The incumbent's answers as text."""
    candidate: Health
    """The candidate's."""
    guardrails: Guardrails


@dataclass(frozen=True)
class Verdict:
    """The decision."""

    promote: bool
    reasons: tuple[str, ...]
    """What every condition came to, also those that hold, and the notes beside them."""
    conditions: tuple[Condition, ...] = ()
    """The conditions one by one; none in a verdict that was read back."""


def decide(evidence: Evidence, promotion: Promotion, dimensions: Collection[str]) -> Verdict:
    """Promote where the candidate is better overall, worse nowhere, has not paid for it, and enough prompts say so.

    Better overall: the bootstrap interval of the overall difference lies above zero. Worse nowhere: no dimension's mean
    difference lies below minus its tolerance. Not paid for: its answers are neither much longer or shorter nor more
    repetitive than the incumbent's, it has not moved far from base and champion, and it does as well on the user's own
    prompts. What could not be measured and has a limit is a no, never a zero.

    Args:
        evidence: what was measured.
        promotion: the limits.
        dimensions: the declared dimensions' names; the comparison must hold exactly these.

    Raises:
        UserError: a declared dimension is missing from the comparison, or the comparison has one that is not declared.
    """
    comparison, guardrails = evidence.comparison, evidence.guardrails
    if set(comparison.dimensions) != set(dimensions):
        raise UserError(
            f"the comparison holds the dimensions {', '.join(comparison.dimensions)}; declared are"
            f" {', '.join(dimensions)}; evaluate again: run `dvc repro`"
        )
    conditions = (
        _enough_prompts(comparison.prompts, promotion.min_test_prompts),
        _better_overall(comparison),
        *(
            _not_worse(name, contrast, promotion.tolerance.get(name, 0.0))
            for name, contrast in comparison.dimensions.items()
        ),
        *_not_degenerate(evidence, promotion),
        *_near_enough(guardrails, promotion),
        *_no_regression(guardrails, promotion),
    )
    reasons = [
        *(["no judge: ranking only"] if comparison.metric == REWARD_ACCURACY else []),
        *(condition.text for condition in conditions),
        *([] if guardrails.regression else ["no regression set"]),
        pareto_note(comparison, guardrails.incumbent),
    ]
    return Verdict(all(condition.holds for condition in conditions), tuple(reasons), conditions)


def pareto_note(comparison: Comparison, incumbent: str) -> str:
    """Who dominates whom: a dimension counts as better or worse where its difference's interval leaves out zero."""
    known = {name: contrast.difference for name, contrast in comparison.dimensions.items() if contrast}
    better = [name for name, difference in known.items() if difference.low > 0]
    worse = [name for name, difference in known.items() if difference.high < 0]
    if better and worse:
        return f"Pareto: trades off, better in {', '.join(better)}, worse in {', '.join(worse)} than the {incumbent}"
    if better:
        return f"Pareto: dominates the {incumbent}, better in {', '.join(better)}, worse in none"
    if worse:
        return f"Pareto: dominated by the {incumbent}, worse in {', '.join(worse)}, better in none"
    return f"Pareto: no dimension is shown to differ from the {incumbent}'s"


def _enough_prompts(prompts: int, asked: int) -> Condition:
    holds = prompts >= asked
    said = f"{'enough' if holds else 'too few'} paired test prompts: {prompts}, at least {asked} asked for"
    return Condition("prompts", holds, said)


def _better_overall(comparison: Comparison) -> Condition:
    name = comparison.metric.name
    if comparison.overall is None:
        return Condition("overall", False, f"overall {name}: not measured, because a dimension with weight is not")
    difference = comparison.overall.difference
    said = f"overall {name} {_signed(difference)}"
    if difference.low > 0:
        return Condition("overall", True, f"{said}: better, the interval lies above zero")
    return Condition("overall", False, f"{said}: not shown to be better, the interval does not lie above zero")


def _not_worse(name: str, contrast: Contrast | None, tolerance: float) -> Condition:
    key = f"dimension/{name}"
    if contrast is None:
        return Condition(key, False, f"{name}: not measured, no test pair differs in it")
    holds = contrast.difference.mean >= -tolerance
    verb = "kept within" if holds else "on average worse than"
    return Condition(key, holds, f"{name} {_signed(contrast.difference)}: {verb} its tolerance of {tolerance:g}")


def _not_degenerate(evidence: Evidence, promotion: Promotion) -> Iterator[Condition]:
    before, after, who = evidence.incumbent, evidence.candidate, evidence.guardrails.incumbent
    if (most := promotion.max_length_ratio) is not None:
        holds = before.tokens <= most * after.tokens and after.tokens <= most * before.tokens
        limit = f"{'within' if holds else 'beyond'} {most:g} times longer or shorter"
        yield Condition(
            "length", holds, f"answers of {after.tokens:.1f} tokens, the {who}'s of {before.tokens:.1f}: {limit}"
        )
    if (rise := promotion.max_repetition_rise) is not None:
        holds = after.repetition - before.repetition <= rise
        limit = f"{'within' if holds else 'beyond'} a rise of {rise:g}"
        said = f"share of repeated 3-grams {after.repetition:.3f}, the {who}'s {before.repetition:.3f}: {limit}"
        yield Condition("repetition", holds, said)


def _near_enough(guardrails: Guardrails, promotion: Promotion) -> Iterator[Condition]:
    """A limit on the divergence from a champion that there is not yet says nothing."""
    limits = {BASE: promotion.max_kl_base}
    if guardrails.incumbent == CHAMPION:
        limits[CHAMPION] = promotion.max_kl_champion
    for name, limit in limits.items():
        if limit is None:
            continue
        if name not in guardrails.kl:
            why = guardrails.unmeasured.get(name, "the stage guardrails has not measured it")
            said = f"KL divergence from the {name}: not measured ({why}); empty promotion.max_kl_{name} lifts the limit"
            yield Condition(f"kl/{name}", False, said)
            continue
        holds = guardrails.kl[name] <= limit
        said = f"KL divergence from the {name} {guardrails.kl[name]:.3f} nats per token"
        yield Condition(f"kl/{name}", holds, f"{said}: {'within' if holds else 'beyond'} the limit of {limit:g}")


def _no_regression(guardrails: Guardrails, promotion: Promotion) -> Iterator[Condition]:
    found = guardrails.regression
    if found is None:
        return
    name, worst = min(found.differences.items(), key=lambda item: item[1].mean)
    holds = worst.mean >= -promotion.max_regression
    said = (
        f"regression set of {found.prompts} prompts, least in {name.replace('_', ' ')}: {_signed(worst)} {found.unit}"
    )
    limit = f"{'kept within' if holds else 'worse than'} the tolerance of {promotion.max_regression:g}"
    yield Condition("regression", holds, f"{said}: {limit}")


def _signed(difference: Interval) -> str:
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
