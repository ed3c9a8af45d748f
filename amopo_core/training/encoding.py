"""Preference pairs as token ids: every view of a pair, shortened alike, or dropped with a reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from amopo_core.chat import ChatEncoder
from amopo_core.config import Dimension, Views
from amopo_core.data.tables import Pair
from amopo_core.views import views_of


@dataclass(frozen=True)
class EncodedPair:
    """A pair ready for batches. The responses' ids are the same in every view, the end token included."""

    pair_id: str
    prompts: tuple[list[int] | None, ...]
    """The prompt of each view; None: the view is not active."""
    swapped: tuple[bool, ...]
    """True where the view prefers `rejected`."""
    plain_prompt: list[int]
    """The prompt without an instruction."""
    chosen: list[int]
    rejected: list[int]
    truncated: int
    """Tokens of the turns' text left out, the same in every view [tokens]."""
    weight: float = 1.0
    """Factor of the pair's loss, above 0, at most 1."""


@dataclass(frozen=True)
class DroppedPair:
    """A pair that cannot be trained on, and why."""

    pair_id: str
    reason: str
    """A key of `REASONS`."""
    needs: int = 0
    """Tokens that it would need at least, where it is too long."""


REASONS = {
    "no_active_view": "turn views.generic on or use views.pair_order: overall",
    "empty_response": "a response has no tokens; mend or remove the row",
    "equal_responses": "both responses have the same tokens; mend or remove the row",
    "response_too_long": "the longer response alone does not fit; raise train.max_length",
    "too_long": "response, template, system prompt and instruction together do not fit; raise train.max_length",
    "prompt_lost": "nothing of the last turn's text would be left; raise train.max_length",
}
"""Why a pair is dropped, in the order in which it is looked for, and what would mend it.

Responses are never shortened, so those that differ stay different.
"""


class PairEncoder:
    """Encodes pairs for one tokenizer, one set of dimensions and one length."""

    def __init__(
        self, encoder: ChatEncoder, dimensions: Mapping[str, Dimension], views: Views, max_length: int
    ) -> None:
        self.encoder = encoder
        self.dimensions = dimensions
        self.views = views
        self.max_length = max_length

    def encode(self, pairs: Iterable[Pair]) -> Iterator[EncodedPair | DroppedPair]:
        """Each pair encoded, or dropped with one of `REASONS`."""
        return map(self._encode, pairs)

    def _encode(self, pair: Pair) -> EncodedPair | DroppedPair:
        views = views_of(pair, self.dimensions, self.views)
        if not any(views):
            return DroppedPair(pair.pair_id, "no_active_view")
        chosen, rejected = self.encoder.response(pair.chosen), self.encoder.response(pair.rejected)
        if min(len(chosen), len(rejected)) < 2:  # nothing but the end token
            return DroppedPair(pair.pair_id, "empty_response")
        if chosen == rejected:
            return DroppedPair(pair.pair_id, "equal_responses")
        longest = max(len(chosen), len(rejected))
        plain = self.encoder.parts(pair.prompt)
        parts = [self.encoder.parts(pair.prompt, view.instruction) if view else None for view in views]
        widest = max(part.fixed for part in parts if part is not None)
        text_budget, needs = self.max_length - longest - widest, longest + widest + 1
        if longest >= self.max_length:
            return DroppedPair(pair.pair_id, "response_too_long", needs)
        if text_budget < 0:
            return DroppedPair(pair.pair_id, "too_long", needs)
        shortened = plain.fit(text_budget)
        if not shortened.last_turn:
            # A last turn without text stays lost at any length.
            return DroppedPair(pair.pair_id, "prompt_lost", needs if text_budget < plain.text else 0)
        return EncodedPair(
            pair_id=pair.pair_id,
            prompts=tuple(part.fit(text_budget).ids if part else None for part in parts),
            swapped=tuple(view.swapped if view else False for view in views),
            plain_prompt=shortened.ids,
            chosen=chosen,
            rejected=rejected,
            truncated=shortened.truncated,
            weight=pair.weight,
        )
