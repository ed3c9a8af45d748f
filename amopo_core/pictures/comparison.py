"""The picture of two policies side by side, dimension by dimension."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes

from amopo_core.evaluation.bootstrap import Interval
from amopo_core.evaluation.comparison import Comparison, Contrast
from amopo_core.pictures.style import ACCENT, FAINT, INK, picture, spoken

_OFFSET = 0.13
"""Half the distance between the two policies' marks in a row [rows]."""

_LABEL_BOX = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}


def draw_comparison(comparison: Comparison, baseline: str, candidate: str, path: Path) -> None:
    """Write the picture: left both policies with their intervals, right the difference with its interval.

    Args:
        comparison: what is drawn; a dimension that could not be measured is left out.
        baseline: what the baseline is called.
        candidate: what the candidate is called.
        path: the PNG file.
    """
    measured = {spoken(name): contrast for name, contrast in comparison.rows.items() if contrast is not None}
    with picture(path, 11, 1.6 + 0.62 * len(measured), columns=2) as (policies, differences):
        _draw_policies(policies, measured, baseline, candidate)
        policies.set(title=comparison.metric.title, xlabel=comparison.metric.unit)
        _draw_differences(differences, measured)
        differences.set(title=f"{candidate} − {baseline}", xlabel=f"difference [{comparison.metric.unit}]")


def _draw_policies(panel: Axes, rows: Mapping[str, Contrast], baseline: str, candidate: str) -> None:
    for place, contrast in enumerate(rows.values()):
        _draw_interval(panel, contrast.baseline, place - _OFFSET, FAINT, baseline if place == 0 else None)
        _draw_interval(panel, contrast.candidate, place + _OFFSET, ACCENT, candidate if place == 0 else None)
    panel.set_yticks(range(len(rows)), list(rows))
    panel.figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    _tidy(panel, len(rows))


def _draw_differences(panel: Axes, rows: Mapping[str, Contrast]) -> None:
    panel.axvline(0, color=INK, linewidth=1)
    for place, contrast in enumerate(rows.values()):
        difference = contrast.difference
        _draw_interval(panel, difference, place, ACCENT, None)
        said = f"{difference.mean:+.2f}".replace("-", "−")
        panel.annotate(
            said, (difference.mean, place), (0, 8), textcoords="offset points", ha="center", fontsize=9, bbox=_LABEL_BOX
        )
    panel.set_yticks(range(len(rows)), [""] * len(rows))
    _tidy(panel, len(rows))


def _draw_interval(panel: Axes, interval: Interval, place: float, shade: str, label: str | None) -> None:
    panel.plot(
        [interval.low, interval.high], [place, place], color=shade, linewidth=3, solid_capstyle="round", alpha=0.5
    )
    panel.plot(interval.mean, place, "o", color=shade, markersize=8, label=label)


def _tidy(panel: Axes, rows: int) -> None:
    panel.set_ylim(max(rows, 1) - 0.5, -0.5)
    panel.locator_params(axis="x", nbins=6)
    panel.grid(visible=False, axis="y")
    panel.tick_params(axis="y", length=0)
