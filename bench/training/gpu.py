"""What is said of a step on a GPU: the arithmetic it cannot do without, and the longest context that fits."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from transformers.utils import logging as transformers_logging

from amopo_core.training.encoding import EncodedPair
from bench.training.task import INSTRUCTION, Lengths, Shape, Task, make_pairs, necessary_tokens, response_tokens

SHAPES = {
    "0.5B": Shape("Qwen2.5-0.5B", 151_936, 896, 24, 14, 2, 4_864),
    "1.5B": Shape("Qwen2.5-1.5B", 151_936, 1_536, 28, 12, 2, 8_960),
    "7B": Shape("Qwen2.5-7B", 152_064, 3_584, 28, 28, 4, 18_944, tied=False),
}
TINY = Shape("tiny", 512, 32, 1, 2, 1, 64)
PEAKS = {"H200": 989.0, "H100": 989.0, "A100": 312.0}
"""Data sheets: dense bfloat16 products [TFLOP/s]."""


def block_parameters(shape: Shape) -> int:
    """Weights of all blocks' matrix products."""
    head = shape.hidden // shape.heads
    attention = 2 * shape.hidden * shape.heads * head + 2 * shape.hidden * shape.key_heads * head
    return shape.layers * (attention + 3 * shape.hidden * shape.intermediate)


def necessary_flops(shape: Shape, pairs: Sequence[EncodedPair], *, adapters: bool = False) -> float:
    """Floating-point operations that a step on the pairs cannot do without.

    6 * N for each necessary token: 2 forward, 4 backward, N the weights of the blocks' matrix products; with adapters
    4 * N, as the base's weights need no gradient. Necessary are each view's prompt once and what is read of its two
    responses. The output layer counts for response tokens only, the embedding not at all, a recomputation never.
    Attention: 12 * hidden * blocks (4 forward, 8 backward) for each token and each token that it sees.
    """
    each = 4 if adapters else 6
    seen = sum(_seen(len(prompt), pair) for pair in pairs for prompt in pair.prompts if prompt is not None)
    return (
        each * block_parameters(shape) * necessary_tokens(pairs)
        + each * shape.vocabulary * shape.hidden * response_tokens(pairs)
        + 12.0 * shape.hidden * shape.layers * seen
    )


def utilisation(task: Task, seconds: float, peak: float) -> float:
    """Share of the GPU's peak [TFLOP/s] that a step's necessary operations took in its time."""
    step = make_pairs(replace(task, steps=1))[-task.pairs_per_step :]
    return necessary_flops(task.shape, step) / seconds / (peak * 1e12)


def longest(fits: Callable[[int], bool], start: int, most: int) -> int:
    """The largest context that fits, to an eighth, at most `most`; 0: not even `start` [tokens]."""
    good, bad = 0, start
    while bad <= most and fits(bad):
        good, bad = bad, 2 * bad
    if good in (0, most) or bad > most:
        return good
    while bad - good > max(good // 8, 1):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def fits(task: Task, context: int) -> bool:
    """Whether a step goes through with one pair of that many tokens a sequence, half of them the response's."""
    from bench.training.measure import measure  # seconds to import, of no use to who asks for the arithmetic

    response = context // 2
    prompt = context - response - INSTRUCTION
    lengths = Lengths((prompt, prompt), (response, response))
    try:
        measure(replace(task, pairs_per_step=1, steps=1, lengths=lengths))
    except torch.OutOfMemoryError:
        return False
    finally:
        gc.collect()
        if not task.is_cpu:
            torch.cuda.empty_cache()
    return True


def _seen(prompt: int, pair: EncodedPair) -> float:
    """Tokens seen, over the necessary tokens of a view: a triangle for the prompt, a trapezium for each response."""
    read = [len(response) - 1 for response in (pair.chosen, pair.rejected)]
    return prompt * (prompt + 1) / 2 + sum(count * (prompt + (count + 1) / 2) for count in read)


def main(text: str, start: int, most: int) -> None:
    """Print the longest context of a task."""
    transformers_logging.set_verbosity_error()
    task = Task.of(json.loads(text))
    print(json.dumps({"context": longest(lambda context: fits(task, context), start, most)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
