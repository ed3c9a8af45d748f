"""How the tokens of a packed row see each other: only what stands on their own path of the tree.

`segments` computes exactly the products that the tree needs, piece by piece, on any device; `flex_attention` is one
fused kernel on CUDA, told the same by a mask. Axes: T = tokens of the row, Q = of a segment, K = of its path.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface

from amopo_core.engine.moving import moved_to
from amopo_core.engine.tree import Segment, Tokens, subtree_ends

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

SEGMENTS, FLEX, SDPA = "amopo_segments", "flex_attention", "sdpa"
"""Names of attention implementations, as transformers' `set_attn_implementation` takes them."""
Spans = list[tuple[int, int]]
"""Where each part of the row that a segment sees starts, and where it stops."""
BLOCK = 128
"""Side of a block of `flex_attention` [tokens]."""


class Pieces:
    """What `segment_attention` must know of a row, the same for every layer."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.lengths = [len(segment) for segment in segments]
        self.paths = [_spans([*(segments[parent] for parent in each.parents), each]) for each in segments]
        """For each segment, the parts of the row that it sees, from the first to its own end."""
        self.unread = [0] * len(segments)
        """For each segment, how many tokens at its beginning are not asked for."""
        self._whole: Pieces | None = None
        self._masks: list[Tensor | None] = []

    def without(self, unread: Sequence[int]) -> Pieces:
        """The same for a layer of which so many tokens at the beginning of each segment are not read."""
        rest = copy(self)
        rest.unread, rest._whole, rest._masks = list(unread), self, []
        return rest

    def masks(self, like: Tensor) -> list[Tensor | None]:
        """For each segment, what is added to its scores, shape (Q, K): 0 or -infinity; None: a whole root, causal.

        Made once, in the precision and on the device of `like`: attention would make its own in every layer.
        """
        if not self._masks:
            self._masks = [self._mask(number, like) for number in range(len(self.lengths))]
        return self._masks

    def _mask(self, number: int, like: Tensor) -> Tensor | None:
        whole = None if self._whole is None else self._whole.masks(like)[number]
        if whole is not None:
            return whole[self.unread[number] :]
        length = self.lengths[number] - self.unread[number]
        seen = sum(stop - start for start, stop in self.paths[number])
        return like.new_full((length, seen), -torch.inf).triu(seen - length + 1) if length < seen else None


def segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    pieces: Pieces,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one packed row, as transformers asks for it: (1, heads, T, size) -> (1, T, heads, size).

    0 for the tokens that are not asked for.
    """
    if query.is_cuda and query.shape[1] != key.shape[1]:  # its fused kernels take a mask or grouped heads, not both
        key, value = (states.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for states in (key, value))
    keys, values = (_Seen.apply(states, pieces.paths) for states in (key, value))  # type: ignore[no-untyped-call]
    outputs = [
        F.scaled_dot_product_attention(
            queries_Q[:, :, unread:],
            keys_K,
            values_K,
            attn_mask=mask_QK,
            is_causal=mask_QK is None,
            dropout_p=dropout if module.training else 0.0,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        for queries_Q, keys_K, values_K, mask_QK, unread in zip(
            torch.split(query, pieces.lengths, dim=2), keys, values, pieces.masks(query), pieces.unread, strict=True
        )
    ]
    whole = [
        F.pad(each, (0, 0, unread, 0)) if unread else each for each, unread in zip(outputs, pieces.unread, strict=True)
    ]  # to pad by nothing is to copy
    return torch.cat([each.transpose(1, 2) for each in whole], dim=1), None


class _Seen(torch.autograd.Function):
    """The states that each segment sees. Their gradients are added up in one place: each slice's has the row's size."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, paths: Sequence[Spans]) -> tuple[Tensor, ...]:
        """One for each path; of a path that lies in one part, without a copy."""
        ctx.paths, ctx.shape = paths, states.shape
        parts = ([states[:, :, start:stop] for start, stop in path] for path in paths)
        return tuple(each[0] if len(each) == 1 else torch.cat(each, dim=2) for each in parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """A token's is the sum of those of all who see it, the last of them first, as autograd adds slices' up."""
        total = grads[0].new_zeros(ctx.shape)
        for grad, path in zip(reversed(grads), reversed(ctx.paths), strict=True):
            for part, (start, stop) in zip(torch.split(grad, [b - a for a, b in path], dim=2), path, strict=True):
                total[:, :, start:stop] += part
        return total, None


def _spans(segments: Sequence[Segment]) -> Spans:
    """The parts of the row that segments take, in order; what follows on one another is one part."""
    spans: Spans = []
    for segment in segments:
        start = spans.pop()[0] if spans and spans[-1][1] == segment.start else segment.start
        spans.append((start, segment.stop))
    return spans


def block_mask(subtree_end_T: Tensor, segments: Sequence[Segment]) -> BlockMask:
    """The same for `flex_attention`: token k is seen by token q where k <= q < subtree_end[k].

    Which blocks there are, the host works out from the row's segments: no (T, T) mask is made, nothing waits for the
    device that holds `subtree_end_T`.
    """
    from torch.nn.attention.flex_attention import BlockMask

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < subtree_end_T[key])

    length = len(subtree_end_T)
    seen, wholly = visible_blocks(np.repeat(subtree_ends(segments), [len(segment) for segment in segments]))
    blocks = moved_to(subtree_end_T.device, torch.from_numpy(np.stack([seen & ~wholly, wholly])))[:, None, None]
    counts = blocks.sum(-1, dtype=torch.int32)
    indices = blocks.int().argsort(dim=-1, descending=True, stable=True).int()
    return BlockMask.from_kv_blocks(
        counts[0], indices[0], counts[1], indices[1], BLOCK, sees, seq_lengths=(length, length)
    )


def visible_blocks(subtree_end: Tokens) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which blocks of queries see something of which blocks of keys, and which see all: (query, key) blocks each."""
    length = len(subtree_end)
    starts = np.arange(0, length, BLOCK)
    stops, count = starts + BLOCK, len(starts)
    block_of_key, last_query = np.arange(length) // BLOCK, (subtree_end - 1) // BLOCK
    begins_less_ends = np.zeros((count + 1, count), dtype=np.int64)
    np.add.at(begins_less_ends, (block_of_key, block_of_key), 1)
    np.add.at(begins_less_ends, (last_query + 1, block_of_key), -1)
    seen = begins_less_ends.cumsum(0)[:-1] > 0
    least_end = np.minimum.reduceat(subtree_end, starts)
    return seen, (stops[None] <= starts[:, None] + 1) & (least_end[None] >= stops[:, None])


def dense_mask(subtree_end_T: Tensor) -> Tensor:
    """The same as one boolean mask, shape (T, T): the plain form that the others must equal."""
    place_T = torch.arange(len(subtree_end_T), device=subtree_end_T.device)
    return (place_T[None] <= place_T[:, None]) & (place_T[:, None] < subtree_end_T[None])


AttentionInterface.register(SEGMENTS, segment_attention)
AttentionMaskInterface.register(SEGMENTS, lambda *_, **__: None)
