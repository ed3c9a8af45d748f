"""Which pairs meet in an optimizer step, and how ranks and micro-batches share them out.

The global batch is fixed by seed, step and `batch_pairs` alone; ranks and micro-batches change no result. Any step can
be had without those before it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class MicroBatch:
    """The pairs of one forward pass of one rank."""

    step: int
    """Optimizer step, counted from 0."""
    indices: tuple[int, ...]
    """Pairs by their place in the data set."""
    pairs_in_step: int
    """Pairs of that step's global batch; fewer than `batch_pairs` in the last one of an epoch."""
    counts: bool = True
    """False for the filler of a rank that has no pair of its own: every rank makes as many passes as any other."""


class StepPlan:
    """The micro-batches of one rank, step by step."""

    def __init__(
        self,
        tokens: NDArray[np.int64],
        *,
        batch_pairs: int,
        micro_batch_tokens: int,
        epochs: int,
        seed: int,
        rank: int,
        ranks: int,
    ) -> None:
        """`tokens` says of each pair how many it brings to a forward pass."""
        self.tokens = tokens
        self.batch_pairs = min(batch_pairs, len(tokens))
        self.micro_batch_tokens = micro_batch_tokens
        self.epochs = epochs
        self.seed = seed
        self.rank = rank
        self.ranks = ranks
        self._order = lru_cache(maxsize=1)(self._shuffled)
        self._bins = lru_cache(maxsize=1)(self._shared_out)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in a pass over the pairs."""
        return math.ceil(len(self.tokens) / self.batch_pairs)

    def __len__(self) -> int:
        """Optimizer steps of the run."""
        return self.epochs * self.steps_per_epoch

    def global_batch(self, step: int) -> list[int]:
        """The pairs of a step, over all ranks."""
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        start = step_of_epoch * self.batch_pairs
        indices: list[int] = self._order(epoch)[start : start + self.batch_pairs].tolist()
        return indices

    def micro_batches(self, step: int) -> list[MicroBatch]:
        """This rank's share of a step: as many micro-batches as every other rank's, of about as many tokens."""
        indices = self.global_batch(step)
        own = self._bins(step)[self.rank :: self.ranks]
        return [
            MicroBatch(step, tuple(indices[place] for place in places), len(indices))
            if places
            else MicroBatch(step, (indices[0],), len(indices), counts=False)
            for places in own
        ]

    def _shared_out(self, step: int) -> list[list[int]]:
        return share_out(self.tokens[self.global_batch(step)], self.micro_batch_tokens, self.ranks)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        key = sha256(f"{self.seed}/order/{epoch}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))
        order: NDArray[np.int64] = torch.randperm(len(self.tokens), generator=generator).numpy()
        return order


def share_out(tokens: Sequence[int] | NDArray[np.int64], limit: int, ranks: int) -> list[list[int]]:
    """Items in as few bins of at most `limit` tokens as will do, a multiple of `ranks`, evenly filled.

    The longest go first, each into the emptiest bin; an item longer than the limit gets a bin of its own. The number of
    bins is the least for which that works out, to a hundredth; items of a bin keep their order.
    """
    sizes = [int(size) for size in tokens]
    longest_first = sorted(range(len(sizes)), key=lambda item: (-sizes[item], item))
    room = max(limit, sizes[longest_first[0]])
    count = ranks * math.ceil(max(math.ceil(sum(sizes) / room), 1) / ranks)
    while True:
        bins: list[list[int]] = [[] for _ in range(count)]
        heap = [(0, number) for number in range(count)]
        fits = True
        for item in longest_first:
            filled, number = heap[0]
            fits = fits and (filled == 0 or filled + sizes[item] <= limit)
            heapq.heapreplace(heap, (filled + sizes[item], number))
            bins[number].append(item)
        if fits or count >= len(sizes):
            return [sorted(items) for items in bins]
        count += ranks * math.ceil(count / ranks / 100)
