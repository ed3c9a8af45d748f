"""Views: a preference pair as each dimension sees it (docs/method.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from amopo_core.config import GENERIC_VIEW, Dimension, Views
from amopo_core.data.tables import Pair

BLANK_LINE = "\n\n"
"""Stands between an instruction and the text."""


@dataclass(frozen=True)
class View:
    """One active view of one pair."""

    instruction: str
    """Put into the prompt, for both responses alike."""
    swapped: bool
    """True where this view prefers the response that the overall order rejects."""


def views_of(pair: Pair, dimensions: Mapping[str, Dimension], views: Views) -> tuple[View | None, ...]:
    """The views of a pair, the generic one first where it is on, then the dimensions in their order; None: inactive.

    A dimension's view names the score of the response it prefers. Where that is missing and only an order is known, it
    names no score and is active if it prefers the response that people preferred. With `pair_order: per_dimension` it
    is inactive where the order is unknown or a tie.
    """
    generic = [View(instruction(GENERIC_VIEW, None, dimensions), swapped=False)] if views.generic else []
    return (*generic, *(_dimension_view(pair, name, dimensions, views.pair_order) for name in dimensions))


def instruction(view: str, score: int | None, dimensions: Mapping[str, Dimension]) -> str:
    """The text put before a prompt: the generic view names every dimension, the others one and its target score.

    `score` is None where no score is known, only which response is better.
    """
    if view == GENERIC_VIEW:
        return f"Aim for high scores in {', '.join(map(_spoken, dimensions))}.{BLANK_LINE}"
    aim = f"high {_spoken(view)}" if score is None else f"{_spoken(view)} {score} of 5"
    return f"Aim for {aim}: {dimensions[view].description}.{BLANK_LINE}"


def instruction_behind(instruction: str) -> str:
    """An instruction as it stands behind a text: the blank line before it instead of after it."""
    return BLANK_LINE + instruction.rstrip("\n")


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
    gap = pair.gap(name) or 0.0  # the unknown orders no more than a tie
    per_dimension = pair_order == "per_dimension"
    swapped = per_dimension and gap < 0
    score = (pair.rejected_scores if swapped else pair.chosen_scores).get(name)
    known_better = swapped or gap > 0  # "high" would be false of a response that is not
    if (per_dimension and not gap) or (score is None and not known_better):
        return None
    return View(instruction(name, None if score is None else target_score(score), dimensions), swapped)


def _spoken(name: str) -> str:
    return name.replace("_", " ")
