"""Pictures of a training run, from its history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from amopo_core.config import GENERIC_VIEW
from amopo_core.pictures.style import FAINT, INK, colour, picture, spoken

History = Sequence[Mapping[str, float]]
"""Rows of history.jsonl: `step` and the metrics logged at it."""

_VALIDATION: Mapping[str, Any] = {"linestyle": "--", "marker": "o", "markersize": 4}


def draw_training(history: History, out: Path) -> None:
    """Write curves.png (loss, margins, accuracies) and weights.png (weights per view over time) into a folder."""
    views = _views(history)
    with picture(out / "curves.png", 13, 4.2, columns=3) as (loss, margins, accuracies):
        _draw_loss(loss, history)
        _draw_views(margins, history, views, "rewards/margins")
        margins.set(title="Reward margin", ylabel="reward of chosen − rejected")
        _draw_views(accuracies, history, views, "rewards/accuracies")
        accuracies.set(title="Reward accuracy", ylabel="share of the pairs")
        accuracies.axhline(0.5, color=FAINT, linewidth=1, linestyle=":")
        _legend_below(margins)
    with picture(out / "weights.png", 8.5, 3.8) as (weights,):
        _draw_weights(weights, history, views)


def _views(history: History) -> list[str]:
    """The views that the history knows, the generic one first, then in the order of their first appearance."""
    prefix = "rewards/margins/"
    names = dict.fromkeys(key.removeprefix(prefix) for row in history for key in row if key.startswith(prefix))
    return sorted(names, key=lambda name: name != GENERIC_VIEW)


def _colours(views: Sequence[str]) -> Iterator[str]:
    """A colour a view: ink for the generic one, so that a dimension has one colour in every picture."""
    places = iter(range(len(views)))
    return (INK if view == GENERIC_VIEW else colour(next(places)) for view in views)


def _draw_loss(panel: Axes, history: History) -> None:
    panel.plot(*_series(history, "loss"), color=INK, label="training batches")
    panel.plot(*_series(history, "validation/loss"), **_VALIDATION, color=INK, label="validation pairs")
    panel.legend(loc="upper right")
    panel.set(title="Loss", xlabel="optimizer step", ylabel="loss a pair [nats]")


def _draw_views(panel: Axes, history: History, views: Sequence[str], metric: str) -> None:
    for view, shade in zip(views, _colours(views), strict=True):
        panel.plot(*_series(history, f"{metric}/{view}"), color=shade, label=spoken(view), alpha=0.6)
        panel.plot(*_series(history, f"validation/{metric}/{view}"), **_VALIDATION, color=shade)
    panel.set(xlabel="optimizer step")


def _draw_weights(panel: Axes, history: History, views: Sequence[str]) -> None:
    for view, shade in zip(views, _colours(views), strict=True):
        panel.plot(*_series(history, f"weights/{view}"), color=shade, label=spoken(view))
    if views:
        panel.axhline(1 / len(views), color=FAINT, linewidth=1, linestyle=":")
    panel.set(title="Weight of each view in the loss", xlabel="optimizer step", ylabel="mean weight over the pairs")
    panel.set_ylim(bottom=0)
    _legend_below(panel)


def _legend_below(panel: Axes) -> None:
    panel.figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=4)


def _series(history: History, key: str) -> tuple[list[float], list[float]]:
    rows = [row for row in history if key in row]
    return [row["step"] for row in rows], [row[key] for row in rows]
