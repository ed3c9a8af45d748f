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
from statistics import median

import torch
from torch import Tensor

from amopo_core.engine.products import by_onednn, product
from bench.training.task import PRECISIONS, Task, make_pairs, necessary_tokens, response_tokens

TILES = (1024, 4096, 16384)
"""Words of a tile."""


def product_seconds(task: Task) -> list[float]:
    """Of the products that each timed step of the task needs, in micro-batches of the task's tokens."""
    torch.manual_seed(task.seed)
    pairs, count = make_pairs(task), task.pairs_per_step
    steps = [pairs[start : start + count] for start in range(count, len(pairs), count)]
    weight_VH = torch.randn(task.shape.vocabulary, task.shape.hidden).to(PRECISIONS[task.precision])
    found = []
    for step in steps:
        micro_batches = math.ceil(necessary_tokens(step) / task.micro_batch)
        rows = math.ceil(response_tokens(step) / micro_batches)
        hidden_MH = torch.randn(rows, task.shape.hidden).to(weight_VH.dtype)
        found.append(micro_batches * min(_timed(run) for run in _ways(hidden_MH, weight_VH)))
    return found


def _ways(hidden_MH: Tensor, weight_VH: Tensor) -> Iterator[Callable[[], None]]:
    """The products by size of tile and library."""
    gradient_MH, gradient_VH = torch.zeros_like(hidden_MH), torch.zeros_like(weight_VH)
    for words in TILES:
        logits = hidden_MH.new_empty(len(hidden_MH) * min(words, len(weight_VH)))
        yield partial(_by_torch, hidden_MH, weight_VH, words, logits, gradient_MH, gradient_VH)
        if by_onednn(hidden_MH, weight_VH):
            yield partial(_by_onednn, hidden_MH, weight_VH, words)


def _timed(run: Callable[[], None]) -> float:
    """Median seconds of three times, after one that is not counted."""
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:])


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
