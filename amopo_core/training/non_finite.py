"""A step whose loss or gradient is not finite: which pairs and views it came from."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate.utils import gather_object
from torch import Tensor

from amopo_core.engine.batches import Batch, StepBatches
from amopo_core.objective import ObjectiveResult

ROWS = Path("logs/train/non_finite.jsonl")
SHOWN = 3
"""Pairs that a message names at most."""


class NotFinite(Exception):
    """The run ended at a step that is not finite."""


class StepPairs:
    """The pairs of a step of this rank, and which losses are not finite; the host waits for nothing until asked."""

    def __init__(self, views: Sequence[str]) -> None:
        self.views = tuple(views)
        self._parts: list[tuple[Sequence[str], Tensor, Tensor]] = []

    def add(self, result: ObjectiveResult, batch: Batch) -> None:
        """Add a micro-batch."""
        sum_VB = result.pairwise.chosen_rewards_VB + result.pairwise.rejected_rewards_VB + result.pairwise.loss_VB
        counts_B = batch.counts_B > 0
        bad_VB = ~sum_VB.detach().isfinite() & batch.active_VB & counts_B
        bad_B = (~result.loss_B.detach().isfinite() & counts_B) | bad_VB.any(0)
        self._parts.append((batch.pair_ids, bad_B, bad_VB))

    def ids(self) -> list[str]:
        """All pairs of the step."""
        return [pair_id for pair_ids, _, _ in self._parts for pair_id in pair_ids]

    def bad(self) -> dict[str, list[str]]:
        """The pairs whose loss is not finite, each with the views that are not."""
        return {
            pair_id: [view for view, bad in zip(self.views, bad_V, strict=True) if bad]
            for pair_ids, bad_B, bad_VB in self._parts
            for pair_id, bad, bad_V in zip(pair_ids, bad_B.tolist(), bad_VB.T.tolist(), strict=True)
            if bad
        }


def bad_alone(
    batches: StepBatches, step: int, views: Sequence[str], is_finite: Callable[[Batch], bool]
) -> dict[str, list[str]]:
    """This rank's pairs of a step that fail alone, each with the views that fail alone.

    Args:
        batches: of this rank.
        step: counted from 0.
        views: their names.
        is_finite: whether the gradient of a micro-batch is.
    """
    makes_views = copy(batches.maker)
    makes_views.supervised = False
    found = {}
    for share in batches.plan.micro_batches(step):
        for pair in [batches.pairs[index] for index in share.indices if share.counts]:
            if not is_finite(batches.maker([pair], step=step, pairs_in_step=share.pairs_in_step)):
                alone = [replace(pair, prompts=_only(pair.prompts, number)) for number in range(len(views))]
                found[pair.pair_id] = [
                    view
                    for view, each in zip(views, alone, strict=True)
                    if any(each.prompts)
                    and not is_finite(makes_views([each], step=step, pairs_in_step=share.pairs_in_step))
                ]
    return found


def _only(prompts: Sequence[list[int] | None], number: int) -> tuple[list[int] | None, ...]:
    return tuple(prompt if place == number else None for place, prompt in enumerate(prompts))


@dataclass(frozen=True)
class NonFiniteStep:
    """What was not finite at a step, over all ranks."""

    step: int
    what: str
    """`loss` or `gradient`."""
    pairs: dict[str, list[str]]
    """The views of each pair that it came from; where none could be found, every pair of the step and no view."""
    is_named: bool
    """Whether the pairs are those that it came from."""
    is_every_pair: bool
    """Whether it came from every pair of the step: then the weights are to blame, not the pairs."""

    @classmethod
    def gathered(
        cls, step: int, pairs: StepPairs, loss_sum: float, redo: Callable[[], dict[str, list[str]]]
    ) -> NonFiniteStep:
        """What was not finite; every rank takes part.

        Args:
            step: counted from 1.
            pairs: of this rank.
            loss_sum: over all ranks.
            redo: finds the pairs of this rank that fail alone. In a packed row one pair that is not finite spoils
                others (0 * infinity), so that this counts, and the losses of the step only where it finds none.
        """
        found = _gathered(redo()) or _gathered(pairs.bad())
        everyone: dict[str, list[str]] = {pair_id: [] for pair_id in sorted(gather_object(pairs.ids()))}
        is_every_pair = len(found) == len(everyone) > 1
        what = "gradient" if math.isfinite(loss_sum) else "loss"
        return cls(step, what, found or everyone, bool(found), is_every_pair)

    def error(self) -> NotFinite:
        """The end of the run."""
        return NotFinite(
            f"step {self.step}: the {self.what} is not finite, {self._named()}. Nothing of this step is kept."
            f" {'Lower' if self.is_every_pair else 'Look at these pairs, lower'} train.learning_rate, or set"
            " train.non_finite to skip and start again"
        )

    def note(self, run: Path) -> None:
        """Say that the step is passed over, and append the row."""
        sys.stderr.write(f"train: step {self.step} skipped: the {self.what} is not finite, {self._named()}\n")
        ROWS.parent.mkdir(parents=True, exist_ok=True)
        row = {"run": run.name, "step": self.step, "what": self.what, "pairs": self.pairs}
        with ROWS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _named(self) -> str:
        if self.is_every_pair:
            return f"in each of the step's {len(self.pairs)} pairs, so that the weights are to blame"
        shown = [f"{pair_id} ({', '.join(views)})" if views else pair_id for pair_id, views in self.pairs.items()]
        more = f" and {len(shown) - SHOWN} more ({ROWS} names all)" if len(shown) > SHOWN else ""
        return f"{'pairs' if self.is_named else 'among the pairs'} {', '.join(shown[:SHOWN])}{more}"


def _gathered(found: dict[str, list[str]]) -> dict[str, list[str]]:
    return dict(sorted(gather_object(list(found.items()))))
