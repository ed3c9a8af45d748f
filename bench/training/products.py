"""What an output layer takes that keeps no logits: its matrix products alone, on as many rows as the step has.

Forward, recomputation and the two of the backward pass, tile by tile over the vocabulary; all four, though the engine
makes again only the tiles that it did not keep. Of several sizes of tiles, and of the libraries that multiply here, the
fastest counts.

Axes: M = rows of a micro-batch, H = hidden size, V = vocabulary.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from amopo_core.engine.products import by_onednn, product
from bench.training.task import PRECISIONS, Task, make_pairs, necessary_tokens, response_tokens

TILES = (1024, 4096, 16384)
"""Words of a tile."""
TRIES = 3
"""Of every way to make the products, in turn, before the fastest is timed."""
Way = Callable[[], None]
"""Makes the products of a micro-batch."""


def product_seconds(task: Task, my_turn: Callable[[], None]) -> list[float]:
    """Of the products that a step of the task needs, in micro-batches of the task's tokens, as often as it has steps.

    All steps have as many rows. Each begins when `my_turn` returns, and so does what comes after the last.
    """
    torch.manual_seed(task.seed)
    step = make_pairs(task)[task.pairs_per_step : 2 * task.pairs_per_step]
    micro_batches = math.ceil(necessary_tokens(step) / task.micro_batch)
    rows = math.ceil(response_tokens(step) / micro_batches)
    hidden_MH, weight_VH = (
        torch.randn(length, task.shape.hidden).to(PRECISIONS[task.precision])
        for length in (rows, task.shape.vocabulary)
    )
    ways = list(_ways(hidden_MH, weight_VH))
    tries = [[_seconds(way) for way in ways] for _ in range(TRIES)]
    fastest = ways[np.min(tries, axis=0).argmin()]
    found = []
    for _ in range(task.steps):
        my_turn()
        found.append(sum(_seconds(fastest) for _ in range(micro_batches)))
    my_turn()
    return found


def _ways(hidden_MH: Tensor, weight_VH: Tensor) -> Iterator[Way]:
    """The products by size of tile and library."""
    gradient_MH, gradient_VH = torch.zeros_like(hidden_MH), torch.zeros_like(weight_VH)
    for words in TILES:
        logits = hidden_MH.new_empty(len(hidden_MH) * min(words, len(weight_VH)))
        yield partial(_by_torch, hidden_MH, weight_VH, words, logits, gradient_MH, gradient_VH)
        if by_onednn(hidden_MH, weight_VH):
            yield partial(_by_onednn, hidden_MH, weight_VH, words)


def _seconds(way: Way) -> float:
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def _by_torch(
    hidden_MH: Tensor, weight_VH: Tensor, words: int, logits: Tensor, gradient_MH: Tensor, gradient_VH: Tensor
) -> None:
    """Into memory that is there already."""
    for start in range(0, len(weight_VH), words):
        weight_TH = weight_VH[start : start + words]
        logits_MT = logits[: len(hidden_MH) * len(weight_TH)].view(len(hidden_MH), len(weight_TH))
        torch.mm(hidden_MH, weight_TH.T, out=logits_MT)
        torch.mm(hidden_MH, weight_TH.T, out=logits_MT)
        gradient_MH.addmm_(logits_MT, weight_TH)
        torch.mm(logits_MT.T, hidden_MH, out=gradient_VH[start : start + words])


def _by_onednn(hidden_MH: Tensor, weight_VH: Tensor, words: int) -> None:
    """Into memory of its own; nothing is added up."""
    for weight_TH in weight_VH.split(words):
        logits_TM = product(weight_TH, hidden_MH)
        logits_TM = product(weight_TH, hidden_MH)
        product(weight_TH.t(), logits_TM.t())
        product(logits_TM, hidden_MH.t())
