"""Whether a candidate becomes champion: a pure decision with its reasons."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from amopo_core.config import Promotion
from amopo_core.errors import UserError
from amopo_core.evaluation.bootstrap import Interval
from amopo_core.evaluation.comparison import REWARD_ACCURACY, Comparison, Contrast


@dataclass(frozen=True)
class Reason:
    """One condition of a promotion, and what came."""

    holds: bool
    text: str


@dataclass(frozen=True)
class Verdict:
    """The decision; every condition is there, also those that hold."""

    promote: bool
    reasons: tuple[str, ...]


def decide(comparison: Comparison, promotion: Promotion, dimensions: Collection[str]) -> Verdict:
    """Promote where the candidate is better overall, worse nowhere, and measured on enough prompts.

    Better overall: the bootstrap interval of the overall difference lies above zero. Worse nowhere: no dimension's mean
    difference lies below minus its tolerance. What could not be measured is a no, never a zero.

    Args:
        comparison: the candidate against the champion; against the base policy where there is no champion.
        promotion: tolerance per dimension, and the test prompts asked for.
        dimensions: the declared dimensions' names; the comparison must hold exactly these.

    Raises:
        UserError: a declared dimension is missing from the comparison, or the comparison has one that is not declared.
    """
    if set(comparison.dimensions) != set(dimensions):
        raise UserError(
            f"the comparison holds the dimensions {', '.join(comparison.dimensions)}; declared are"
            f" {', '.join(dimensions)}; evaluate again: run `dvc repro`"
        )
    conditions = [
        _enough_prompts(comparison.prompts, promotion.min_test_prompts),
        _better_overall(comparison),
        *(
            _not_worse(name, contrast, promotion.tolerance.get(name, 0.0))
            for name, contrast in comparison.dimensions.items()
        ),
    ]
    reasons = [condition.text for condition in conditions]
    if comparison.metric == REWARD_ACCURACY:
        reasons.insert(0, "no judge: ranking only")
    return Verdict(all(condition.holds for condition in conditions), tuple(reasons))


def _enough_prompts(prompts: int, asked: int) -> Reason:
    holds = prompts >= asked
    return Reason(
        holds, f"{'enough' if holds else 'too few'} paired test prompts: {prompts}, at least {asked} asked for"
    )


def _better_overall(comparison: Comparison) -> Reason:
    if comparison.overall is None:
        return Reason(False, f"overall {comparison.metric.name}: not measured, because a dimension with weight is not")
    difference = comparison.overall.difference
    said = f"overall {comparison.metric.name} {_signed(difference)}"
    if difference.low > 0:
        return Reason(True, f"{said}: better, the interval lies above zero")
    return Reason(False, f"{said}: not shown to be better, the interval does not lie above zero")


def _not_worse(name: str, contrast: Contrast | None, tolerance: float) -> Reason:
    if contrast is None:
        return Reason(False, f"{name}: not measured, no test pair differs in it")
    holds = contrast.difference.mean >= -tolerance
    verb = "kept within" if holds else "worse than"
    return Reason(holds, f"{name} {_signed(contrast.difference)}: {verb} its tolerance of {tolerance:g}")


def _signed(difference: Interval) -> str:
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
