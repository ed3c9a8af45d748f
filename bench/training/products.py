"""What the output layer cannot do without: its matrix products alone, on as many rows as the step has.

Forward, recomputation and the two of the backward pass, tile by tile over the vocabulary. Of several sizes of tiles,
and of the libraries that multiply here, the fastest counts.

Axes: M = rows of a micro-batch, H = hidden size, V = vocabulary.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from amopo_core.engine.products import by_onednn, product
from bench.training.task import PRECISIONS, Task, make_pairs, necessary_tokens, response_tokens

TILES = (1024, 4096, 16384)
"""Words of a tile."""
TRIES = 3
"""Of every way to make the products, before the fastest is timed."""
Way = Callable[[Tensor], None]
"""Makes them for the hidden states of a micro-batch."""


def product_seconds(task: Task, my_turn: Callable[[], None]) -> list[float]:
    """Of the products that each timed step of the task needs, in micro-batches of the task's tokens."""
    torch.manual_seed(task.seed)
    pairs, count = make_pairs(task), task.pairs_per_step
    steps = [pairs[start : start + count] for start in range(count, len(pairs), count)]
    weight_VH = torch.randn(task.shape.vocabulary, task.shape.hidden).to(PRECISIONS[task.precision])
    micro_batches = [math.ceil(necessary_tokens(step) / task.micro_batch) for step in steps]
    rows = [math.ceil(response_tokens(step) / batches) for step, batches in zip(steps, micro_batches, strict=True)]
    hidden_MH = torch.randn(max(rows), task.shape.hidden).to(weight_VH.dtype)
    fastest = min(_ways(hidden_MH, weight_VH), key=lambda way: min(_seconds(way, hidden_MH) for _ in range(TRIES)))
    found = []
    for batches, length in zip(micro_batches, rows, strict=True):
        my_turn()
        found.append(sum(_seconds(fastest, hidden_MH[:length]) for _ in range(batches)))
    my_turn()
    return found


def _ways(hidden_MH: Tensor, weight_VH: Tensor) -> Iterator[Way]:
    """The products by size of tile and library, for as many hidden states as these at most."""
    gradient_MH, gradient_VH = torch.zeros_like(hidden_MH), torch.zeros_like(weight_VH)
    for words in TILES:
        logits = hidden_MH.new_empty(len(hidden_MH) * min(words, len(weight_VH)))
        yield partial(_by_torch, weight_VH, words, logits, gradient_MH, gradient_VH)
        if by_onednn(hidden_MH, weight_VH):
            yield partial(_by_onednn, weight_VH, words)


def _seconds(way: Way, hidden_MH: Tensor) -> float:
    started = time.perf_counter()
    way(hidden_MH)
    return time.perf_counter() - started


def _by_torch(
    weight_VH: Tensor, words: int, logits: Tensor, gradient_MH: Tensor, gradient_VH: Tensor, hidden_MH: Tensor
) -> None:
    """Into memory that is there already."""
    gradient_MH = gradient_MH[: len(hidden_MH)]
    for start in range(0, len(weight_VH), words):
        weight_TH = weight_VH[start : start + words]
        logits_MT = logits[: len(hidden_MH) * len(weight_TH)].view(len(hidden_MH), len(weight_TH))
        torch.mm(hidden_MH, weight_TH.T, out=logits_MT)
        torch.mm(hidden_MH, weight_TH.T, out=logits_MT)
        gradient_MH.addmm_(logits_MT, weight_TH)
        torch.mm(logits_MT.T, hidden_MH, out=gradient_VH[start : start + words])


def _by_onednn(weight_VH: Tensor, words: int, hidden_MH: Tensor) -> None:
    """Into memory of its own; nothing is added up."""
    for weight_TH in weight_VH.split(words):
        logits_TM = product(weight_TH, hidden_MH)
        logits_TM = product(weight_TH, hidden_MH)
        product(weight_TH.t(), logits_TM.t())
        product(logits_TM, hidden_MH.t())
