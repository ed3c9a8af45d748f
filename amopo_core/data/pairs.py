"""Rated responses into preference pairs, split by prompt into train, validation and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations, groupby
from math import fsum
from typing import Literal
from unicodedata import normalize

from amopo_core.config import Dimension, Pairs
from amopo_core.data.tables import Message, Pair, RatedResponse, Scores, score_gap, text_id

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitPairs:
    """One split and how it came about: every two responses of a prompt are counted in exactly one of the five below."""

    pairs: list[Pair]
    """Sorted by prompt_id, then pair_id."""
    tied: int
    """Two responses with the same overall score."""
    duplicates: int
    """Two responses that differ in white space only."""
    undecided: int
    """Two responses without a score in common that has weight."""
    unselected: int
    """Two responses left out by `pairs.selection` or `pairs.max_per_prompt`."""
    prompts: int
    single_response_prompts: int
    """Prompts among them with one response, which makes no pair."""

    @property
    def conflicting(self) -> int:
        """Pairs in which one dimension prefers `chosen` and another `rejected`."""
        return sum(map(is_conflicting, self.pairs))


@dataclass(frozen=True)
class _Candidate:
    """Two responses of a prompt, the better one first."""

    pair_id: str
    chosen: RatedResponse
    rejected: RatedResponse
    gap: float
    """Overall score of chosen minus that of rejected, above 0 [points of the common scale]."""


def make_pairs(
    responses: Iterable[RatedResponse], dimensions: Mapping[str, Dimension], settings: Pairs
) -> dict[Split, SplitPairs]:
    """The pairs of each split with their counts."""
    prompts: dict[Split, list[list[RatedResponse]]] = {split: [] for split in SPLITS}
    ordered = sorted(responses, key=lambda response: (response.prompt_id, response.response_id))
    for _, group in groupby(ordered, key=lambda response: response.prompt_id):
        rated = list(group)
        prompts[split_of(rated[0].prompt, settings)].append(rated)
    weights = {name: dimension.weight for name, dimension in dimensions.items() if dimension.weight > 0}
    return {split: _split_pairs(prompts[split], weights, settings) for split in SPLITS}


def split_of(prompt: Sequence[Message], settings: Pairs) -> Split:
    """The split of a prompt, decided by its text alone: it never changes sides as feedback grows.

    Prompts that differ in case, white space or Unicode composition only are on the same side.
    """
    turns = [[turn["role"], " ".join(normalize("NFC", turn["content"]).casefold().split())] for turn in prompt]
    position = int(sha256(text_id(turns).encode()).hexdigest()[:13], 16) / 16**13
    if position < settings.test_share:
        return "test"
    return "validation" if position < settings.test_share + settings.validation_share else "train"


def overall_gap(
    first: RatedResponse, second: RatedResponse, weights: Mapping[str, float], order_by: str
) -> float | None:
    """Overall score of `first` minus that of `second` [points of the common scale]; None where nothing decides.

    sum_k w_k (s_k,first - s_k,second) / sum_k w_k over the dimensions k rated in both, or the sources' own overall.
    """
    if order_by == "overall":
        return score_gap(first.overall, second.overall)
    gaps = _gaps(first.scores, second.scores)
    common = [name for name in weights if name in gaps]
    if not common:
        return None
    return score_gap(fsum(weights[name] * gaps[name] for name in common) / fsum(weights[name] for name in common), 0)


def is_conflicting(pair: Pair) -> bool:
    """Whether one dimension prefers `chosen` and another `rejected`."""
    gaps = _gaps(pair.chosen_scores, pair.rejected_scores).values()
    return any(gap > 0 for gap in gaps) and any(gap < 0 for gap in gaps)


def _gaps(first: Scores, second: Scores) -> dict[str, float]:
    """The score difference of each dimension that is rated in both."""
    gaps = {name: score_gap(score, second.get(name)) for name, score in first.items()}
    return {name: gap for name, gap in gaps.items() if gap is not None}


def _split_pairs(
    prompts: Sequence[Sequence[RatedResponse]], weights: Mapping[str, float], settings: Pairs
) -> SplitPairs:
    dropped: Counter[str] = Counter()
    pairs: list[Pair] = []
    for rated in prompts:
        candidates = _candidates(rated, weights, settings, dropped)
        selected = _selected(candidates, settings)
        dropped["unselected"] += len(candidates) - len(selected)
        pairs.extend(map(_pair, selected))
    return SplitPairs(
        pairs=pairs,
        tied=dropped["tied"],
        duplicates=dropped["duplicates"],
        undecided=dropped["undecided"],
        unselected=dropped["unselected"],
        prompts=len(prompts),
        single_response_prompts=sum(len(rated) == 1 for rated in prompts),
    )


def _candidates(
    rated: Sequence[RatedResponse], weights: Mapping[str, float], settings: Pairs, dropped: Counter[str]
) -> list[_Candidate]:
    """Every two responses that have an order; those that have none are counted in `dropped`."""
    candidates = []
    for first, second in combinations(rated, 2):
        gap = overall_gap(first, second, weights, settings.order_by)
        if first.response.split() == second.response.split():
            dropped["duplicates"] += 1
        elif gap is None:
            dropped["undecided"] += 1
        elif gap == 0:
            dropped["tied"] += 1
        else:
            chosen, rejected = (first, second) if gap > 0 else (second, first)
            # Named without its order, so that a later rating that turns the pair around does not rename it.
            pair_id = text_id([first.prompt_id, first.response_id, second.response_id])
            candidates.append(_Candidate(pair_id, chosen, rejected, abs(gap)))
    return candidates


def _selected(candidates: Sequence[_Candidate], settings: Pairs) -> list[_Candidate]:
    """The pairs that stay, by hash; for `best_worst` the one with the widest gap."""
    by_hash = sorted(candidates, key=lambda candidate: candidate.pair_id)
    if settings.selection == "best_worst":
        return [max(by_hash, key=lambda candidate: candidate.gap)] if by_hash else []
    return by_hash[: settings.max_per_prompt]


def _pair(candidate: _Candidate) -> Pair:
    return Pair(
        pair_id=candidate.pair_id,
        prompt_id=candidate.chosen.prompt_id,
        prompt=candidate.chosen.prompt,
        chosen=candidate.chosen.response,
        rejected=candidate.rejected.response,
        chosen_scores=candidate.chosen.scores,
        rejected_scores=candidate.rejected.scores,
    )
