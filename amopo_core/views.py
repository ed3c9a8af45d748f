"""Views: a preference pair as each dimension sees it (docs/method.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from amopo_core.config import GENERIC_VIEW, Dimension, Views
from amopo_core.data.tables import Pair, score_gap


@dataclass(frozen=True)
class View:
    """One active view of one pair."""

    instruction: str
    """Put before the prompt, for both responses alike."""
    swapped: bool
    """True where this view prefers the response that the overall order rejects."""


def views_of(pair: Pair, dimensions: Mapping[str, Dimension], views: Views) -> tuple[View | None, ...]:
    """The views of a pair, the generic one first where it is on, then the dimensions in their order; None: inactive.

    A dimension's view is inactive where the score it would name is missing and, with `pair_order: per_dimension`, where
    either score is missing or both are equal.
    """
    generic = [View(instruction(GENERIC_VIEW, None, dimensions), swapped=False)] if views.generic else []
    return (*generic, *(_dimension_view(pair, name, dimensions, views.pair_order) for name in dimensions))


def instruction(view: str, score: int | None, dimensions: Mapping[str, Dimension]) -> str:
    """The text put before a prompt: the generic view names every dimension, the others one and its target score."""
    if view == GENERIC_VIEW:
        return f"Aim for high scores in {', '.join(map(_spoken, dimensions))}.\n\n"
    return f"Aim for {_spoken(view)} {score} of 5: {dimensions[view].description}.\n\n"


def instruction_of_form(prompt_view: str, dimensions: Mapping[str, Dimension]) -> str | None:
    """The instruction of a `prompt_view` setting: `plain` has none, `all_dimensions`, or `DIMENSION@SCORE`."""
    if prompt_view == "plain":
        return None
    view, _, score = prompt_view.partition("@")
    return instruction(view, int(score) if score else None, dimensions)


def target_score(score: float) -> int:
    """The rubric's nearest integer, halves upwards."""
    return math.floor(score + 0.5)


def _dimension_view(pair: Pair, name: str, dimensions: Mapping[str, Dimension], pair_order: str) -> View | None:
    chosen, rejected = pair.chosen_scores.get(name), pair.rejected_scores.get(name)
    swapped = False
    if pair_order == "per_dimension":
        gap = score_gap(chosen, rejected)
        if not gap:
            return None
        swapped = gap < 0
    preferred = rejected if swapped else chosen
    return None if preferred is None else View(instruction(name, target_score(preferred), dimensions), swapped)


def _spoken(name: str) -> str:
    return name.replace("_", " ")
