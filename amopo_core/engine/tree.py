"""Token sequences as a tree: what several begin with is computed once.

A pair's views share their system prompt, a view's two responses share its prompt. The sequences of a micro-batch are
laid out in one row, in which every branch follows what it continues, depth first. A token sees what stands on its own
path: token `k` is seen by token `q` exactly where k <= q < subtree_end[k].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_SHARED = 16
"""Shorter common beginnings are computed once a sequence: a segment more costs more than it saves [tokens]."""

Tokens = NDArray[np.int64]
TokenIds = Sequence[int] | Tokens


@dataclass(frozen=True)
class Segment:
    """Consecutive tokens of a row that belong to the same sequences."""

    start: int
    stop: int
    """Place in the row [tokens]."""
    parents: tuple[int, ...]
    """The segments before it on its path, the root first, by their number."""

    def __len__(self) -> int:
        """Tokens."""
        return self.stop - self.start


@dataclass(frozen=True)
class Tree:
    """Sequences laid out in one row."""

    tokens: Tokens
    positions: Tokens
    """Place of each token in its own sequence, from 0."""
    subtree_end: Tokens
    """Where the part of the row ends that continues the token."""
    paths: tuple[Tokens, ...]
    """For each sequence, where its tokens stand in the row."""
    segments: tuple[Segment, ...]
    """In the order of the row; none is empty."""


def lay_out(sequences: Sequence[TokenIds], owners: Sequence[int] | None = None) -> Tree:
    """The trees of the sequences, none of them empty, one behind the other; equal sequences become one path.

    Args:
        sequences: token ids, 0 or above.
        owners: only sequences of the same owner share; without, all do. A pair that shared with others would be rounded
            otherwise in other company.
    """
    return _found(sequences, owners).tree()


def subtree_ends(segments: Sequence[Segment]) -> list[int]:
    """For each segment, where the part of the row ends that continues its tokens."""
    ends = [segment.stop for segment in segments]
    for segment in segments:
        for parent in segment.parents:
            ends[parent] = segment.stop  # the row's order: the last one is the furthest
    return ends


def packed_tokens(sequences: Sequence[TokenIds]) -> int:
    """Tokens of the row that `lay_out` makes."""
    return _found(sequences).length


def _found(sequences: Sequence[TokenIds], owners: Sequence[int] | None = None) -> _Layout:
    layout = _Layout([np.asarray(sequence, dtype=np.int64) for sequence in sequences])
    families: dict[int, list[int]] = {}
    for number in range(len(sequences)):
        families.setdefault(owners[number] if owners else 0, []).append(number)
    for family in families.values():
        layout.add(sorted(family, key=layout.order), shared=0, start=0, parents=())
    return layout


class _Layout:
    """Segments as they are found, depth first."""

    def __init__(self, sequences: list[Tokens]) -> None:
        self.sequences = sequences
        self.segments: list[Segment] = []
        self.pieces: list[tuple[Tokens, int]] = []
        self.subtree_ends: list[int] = []
        self.leaf_of: list[tuple[int, ...]] = [()] * len(sequences)
        self.length = 0

    def order(self, number: int) -> bytes:
        """Sorts as the token ids do, in one comparison: bytes are compared from the first, so it is the highest."""
        return self.sequences[number].astype(">i8").tobytes()

    def add(self, numbers: list[int], shared: int, start: int, parents: tuple[int, ...]) -> None:
        """Lay out sequences, sorted, that agree up to `shared` and are on the row up to `start`."""
        first, last = self.sequences[numbers[0]], self.sequences[numbers[-1]]
        agree = _agreement(first, last, shared)
        is_leaf = len(first) == len(last) == agree
        segment = None
        if agree > start and (is_leaf or agree - start >= MIN_SHARED):
            segment = self._segment(first[start:agree], start, parents)
            parents, start = (*parents, segment), agree
        if is_leaf:
            for number in numbers:
                self.leaf_of[number] = parents
        else:
            for branch in self._branches(numbers, agree):
                self.add(branch, agree, start, parents)
        if segment is not None:
            self.subtree_ends[segment] = self.length

    def _branches(self, numbers: list[int], agree: int) -> list[list[int]]:
        """The sequences by the token in which they part; one that ends there is a branch of its own."""
        branches: dict[int, list[int]] = {}
        for number in numbers:
            sequence = self.sequences[number]
            branches.setdefault(int(sequence[agree]) if len(sequence) > agree else -1, []).append(number)
        return list(branches.values())

    def _segment(self, tokens: Tokens, position: int, parents: tuple[int, ...]) -> int:
        self.segments.append(Segment(self.length, self.length + len(tokens), parents))
        self.pieces.append((tokens, position))
        self.subtree_ends.append(0)
        self.length += len(tokens)
        return len(self.segments) - 1

    def tree(self) -> Tree:
        """What was found."""
        spans = [np.arange(segment.start, segment.stop) for segment in self.segments]
        return Tree(
            tokens=np.concatenate([tokens for tokens, _ in self.pieces]),
            positions=np.concatenate([np.arange(len(tokens)) + position for tokens, position in self.pieces]),
            subtree_end=np.repeat(self.subtree_ends, [len(tokens) for tokens, _ in self.pieces]),
            paths=tuple(np.concatenate([spans[number] for number in leaf]) for leaf in self.leaf_of),
            segments=tuple(self.segments),
        )


def _agreement(first: Tokens, last: Tokens, known: int) -> int:
    """How many tokens two sequences begin with alike, `known` of them at least."""
    length = min(len(first), len(last))
    different = np.flatnonzero(first[known:length] != last[known:length])
    return known + int(different[0]) if len(different) else length
