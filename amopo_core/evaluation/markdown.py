"""Numbers and people's text as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from amopo_core.evaluation.bootstrap import Interval
from amopo_core.evaluation.comparison import Comparison, Contrast

_LONGEST = 600
"""Characters of a text that a cell shows."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose other columns are numbers, aligned to the right."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


def comparison_table(comparison: Comparison, baseline: str, candidate: str, confidence: float) -> str:
    """A row a dimension: both means, their difference and its interval; their weighted mean first.

    Args:
        comparison: what is shown.
        baseline: what the baseline is called.
        candidate: what the candidate is called.
        confidence: coverage of the intervals.
    """
    head = ["dimension", baseline, candidate, "difference", f"{100 * confidence:g} % interval"]
    return table(head, [[name.replace("_", " "), *_cells(contrast)] for name, contrast in comparison.rows.items()])


def cell(text: str) -> str:
    """People's text inside a table: nothing in it is markup, line breaks stay, what is too long is cut."""
    shown = text if len(text) <= _LONGEST else text[:_LONGEST] + " …"
    escaped = "".join(f"&#{ord(character)};" if character in _MARKUP else character for character in shown)
    return "<br>".join(escaped.splitlines())


_MARKUP = frozenset("\\`*_{}[]<>()#+!|&~$@:")


def _cells(contrast: Contrast | None) -> list[str]:
    if contrast is None:
        return ["not measured", "not measured", "", ""]
    difference = contrast.difference
    return [
        f"{contrast.baseline.mean:.3f}",
        f"{contrast.candidate.mean:.3f}",
        f"{difference.mean:+.3f}",
        _bounds(difference),
    ]


def _bounds(interval: Interval) -> str:
    return f"{interval.low:+.3f} to {interval.high:+.3f}"
