"""The report of an evaluation: Markdown for people, flat numbers for tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from amopo_core.config import Params
from amopo_core.evaluation.comparison import JUDGE_SCORE, Comparison, Contrast, available_metrics, mean_values
from amopo_core.evaluation.health import health
from amopo_core.evaluation.markdown import cell, comparison_table, table
from amopo_core.evaluation.measurement import Answer, Measurement

BASE, CANDIDATE = "base", "candidate"

_SAMPLES = 6
"""Prompts whose answers the report shows."""


def comparison_numbers(
    base: Measurement, candidate: Measurement, comparisons: Sequence[Comparison]
) -> dict[str, float]:
    """The evaluation as flat numbers, `metric/dimension/what`: both means, their difference and its interval."""
    numbers: dict[str, float] = {**_counts(candidate)}
    for comparison in comparisons:
        for name, contrast in comparison.rows.items():
            if contrast is not None:
                numbers |= {f"{comparison.metric.key}/{name}/{key}": value for key, value in _parts(contrast).items()}
    for side, measurement in ((BASE, base), (CANDIDATE, candidate)):
        numbers |= {f"{key}/{side}": value for key, value in asdict(health(measurement.answers)).items()}
    return _rounded(numbers)


def policy_numbers(measurement: Measurement, params: Params) -> dict[str, float]:
    """What one policy reached as flat numbers, `metric/dimension`."""
    numbers = _counts(measurement) | asdict(health(measurement.answers))
    for metric in available_metrics(measurement):
        means = mean_values(measurement, params, metric)
        numbers |= {f"{metric.key}/{name}": mean for name, mean in means.items()}
    return _rounded(numbers)


def markdown_report(
    base: Measurement, candidate: Measurement, comparisons: Sequence[Comparison], confidence: float, picture: str
) -> str:
    """The report for people.

    Args:
        base: what the base policy did.
        candidate: what the trained policy did.
        comparisons: the tables, the one that decides a promotion first.
        confidence: coverage of the intervals.
        picture: file of the picture, relative to the report.
    """
    parts = [
        "# The candidate against its base policy",
        _headline(comparisons[0]),
        f"![{CANDIDATE} against {BASE}, dimension by dimension]({picture})",
        *(_section(comparison, confidence) for comparison in comparisons),
        _reading(candidate),
        _health_section(base, candidate),
        _samples_section(base, candidate),
    ]
    return "\n\n".join(parts) + "\n"


def _headline(comparison: Comparison) -> str:
    how = "" if comparison.metric == JUDGE_SCORE else " No judge: ranking only."
    if comparison.overall is None:
        return f"Overall {comparison.metric.name}: not measured, because a dimension with weight is not.{how}"
    overall, difference = comparison.overall, comparison.overall.difference
    return (
        f"Overall {comparison.metric.name} on {comparison.prompts} held-out prompts: {overall.baseline.mean:.2f}"
        f" before, {overall.candidate.mean:.2f} after; difference **{difference.mean:+.2f}**"
        f" ({difference.low:+.2f} to {difference.high:+.2f}).{how}"
    )


def _section(comparison: Comparison, confidence: float) -> str:
    metric = comparison.metric
    title = f"## {metric.title} [{metric.unit}]"
    over = f"Means over {comparison.prompts} prompts; intervals by a bootstrap over prompts, paired."
    return f"{title}\n\n{over}\n\n{comparison_table(comparison, BASE, CANDIDATE, confidence)}"


def _reading(measurement: Measurement) -> str:
    """How many of the pairs were read whole: a ranking of shortened prompts says less."""
    counts = _counts(measurement)
    return (
        f"Of {counts['pairs']} test pairs, {counts['pairs_truncated']} were read with a shortened prompt and"
        f" {counts['pairs_unreadable']} did not fit the policy's context and were left out."
    )


def _health_section(base: Measurement, candidate: Measurement) -> str:
    before, after = health(base.answers), health(candidate.answers)
    rows = [
        ["mean length [tokens]", f"{before.tokens:.1f}", f"{after.tokens:.1f}"],
        ["repeated 3-grams [share]", f"{before.repetition:.3f}", f"{after.repetition:.3f}"],
        ["ended by themselves [share]", f"{before.ended:.3f}", f"{after.ended:.3f}"],
    ]
    return f"## The answers as text\n\n{table(['', BASE, CANDIDATE], rows)}"


def _samples_section(base: Measurement, candidate: Measurement) -> str:
    """Both answers to the first prompts; no choosing, so that nothing is flattered."""
    samples = list(zip(base.answers, candidate.answers, strict=True))[:_SAMPLES]
    return "\n\n".join(["## Answers side by side", *(_sample(before, after) for before, after in samples)])


def _sample(before: Answer, after: Answer) -> str:
    turns = [[message["role"], cell(message["content"])] for message in before.prompt]
    answers = [
        [f"**{name}**{_scored(answer)}", cell(answer.response)] for name, answer in ((BASE, before), (CANDIDATE, after))
    ]
    return "\n".join(["| who | text |", "| --- | --- |", *(f"| {who} | {text} |" for who, text in [*turns, *answers])])


def _scored(answer: Answer) -> str:
    if answer.scores is None:
        return ""
    return "<br>" + "<br>".join(f"{name.replace('_', ' ')} {score:g}" for name, score in answer.scores.items())


def _counts(measurement: Measurement) -> dict[str, int]:
    return {
        "prompts": len(measurement.answers),
        "pairs": len(measurement.pairs),
        "pairs_truncated": sum(pair.truncated > 0 for pair in measurement.pairs),
        "pairs_unreadable": sum(pair.chosen_logp is None for pair in measurement.pairs),
    }


def _parts(contrast: Contrast) -> dict[str, float]:
    return {
        BASE: contrast.baseline.mean,
        CANDIDATE: contrast.candidate.mean,
        "difference": contrast.difference.mean,
        "low": contrast.difference.low,
        "high": contrast.difference.high,
    }


def _rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    """Six decimals: more than any of these numbers is known to, and the same in a `dvc metrics diff`."""
    return {key: round(value, 6) for key, value in numbers.items()}
