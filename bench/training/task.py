"""What every variant is measured on: a Qwen2 policy of random weights, and pairs of random tokens with 4 views each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from amopo_core.training.encoding import EncodedPair

VIEWS = 4
INSTRUCTION = 20
"""Tokens of a view's instruction."""
BETA, MARGIN = 0.8, 2.0
LEARNING_RATE, MAX_GRAD_NORM = 3e-7, 3.0
"""The published run's numbers."""
RESERVED = 2
"""Token ids that no text holds: padding and the end token."""

PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "mixed_bfloat16": torch.float32,
    "float64": torch.float64,
}
"""What the weights are held in."""


@dataclass(frozen=True)
class Shape:
    """A Qwen2 policy."""

    name: str
    vocabulary: int
    hidden: int = 256
    layers: int = 4
    heads: int = 4
    key_heads: int = 2
    intermediate: int = 1024
    tied: bool = True

    @property
    def config(self) -> Qwen2Config:
        """As transformers wants it."""
        return Qwen2Config(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_heads,
            intermediate_size=self.intermediate,
            tie_word_embeddings=self.tied,
            max_position_embeddings=131_072,
            use_cache=False,
            pad_token_id=0,
            eos_token_id=1,
        )

    def policy(self, precision: str, device: str = "cpu") -> PreTrainedModel:
        """The policy, the same weights every time."""
        torch.manual_seed(0)
        with torch.device(device):
            model = Qwen2ForCausalLM(self.config)
        return model.to(PRECISIONS[precision]).train()


@dataclass(frozen=True)
class Lengths:
    """Tokens of prompts and responses, drawn evenly between two bounds."""

    prompt: tuple[int, int] = (60, 700)
    response: tuple[int, int] = (50, 500)


@dataclass(frozen=True)
class Task:
    """What a variant is asked to do in one process."""

    variant: str
    shape: Shape
    precision: str
    pairs_per_step: int
    steps: int
    """Timed steps; one with the shortest pairs goes before them."""
    micro_batch: int
    """What the variant counts its micro-batches in: pairs (published), pairs of one view (trl), tokens (ours and
    products)."""
    lengths: Lengths = Lengths()
    threads: int = 2
    """Of each rank."""
    ranks: int = 1
    device: str = "cpu"
    seed: int = 0
    stored: int = 0
    """Pairs of a data set on disk, of which the steps take the first (ours); 0: the steps' pairs alone, in memory."""

    @property
    def is_cpu(self) -> bool:
        """Whether it runs on the CPU."""
        return self.device == "cpu"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Task:
        """From `as_dict`, by way of JSON."""
        lengths = {name: tuple(bounds) for name, bounds in values["lengths"].items()}
        return cls(**values | {"shape": Shape(**values["shape"]), "lengths": Lengths(**lengths)})


def make_pairs(task: Task) -> list[EncodedPair]:
    """The pairs of all steps, in the order in which they meet: first a step of the shortest, which is not timed.

    Every step draws its lengths from the same strata, so that steps are alike and their mean is the range's.
    """
    count, draw = task.pairs_per_step, np.random.default_rng(task.seed)
    shortest = [(task.lengths.prompt[0], task.lengths.response[0], task.lengths.response[0])] * count
    drawn = [
        lengths
        for _ in range(task.steps)
        for lengths in zip(
            _spread(draw, task.lengths.prompt, count),
            _spread(draw, task.lengths.response, count),
            _spread(draw, task.lengths.response, count),
            strict=True,
        )
    ]
    return [_pair(draw, number, task.shape.vocabulary, *lengths) for number, lengths in enumerate(shortest + drawn)]


def sequences(pair: EncodedPair) -> list[tuple[list[int], list[int]]]:
    """Prompt and response of every sequence: (view 0 chosen, view 0 rejected, view 1 chosen, …)."""
    sides = (pair.chosen, pair.rejected)
    return [(prompt, response) for prompt in pair.prompts if prompt is not None for response in sides]


def necessary_tokens(pairs: Sequence[EncodedPair]) -> int:
    """Tokens that a step cannot do without: each view's prompt once, and what is read of its responses."""
    return sum(
        len(prompt) + len(pair.chosen) + len(pair.rejected) - 2
        for pair in pairs
        for prompt in pair.prompts
        if prompt is not None
    )


def response_tokens(pairs: Sequence[EncodedPair]) -> int:
    """Tokens whose log-probability a step needs."""
    return sum(len(response) for pair in pairs for _, response in sequences(pair))


def _spread(draw: np.random.Generator, bounds: tuple[int, int], count: int) -> list[int]:
    """As many lengths, one of each stratum, in any order."""
    low, high = bounds
    middles = low + (high - low) * (np.arange(count) + 0.5) / count
    return [round(length) for length in draw.permutation(middles)]


def _pair(
    draw: np.random.Generator, number: int, vocabulary: int, prompt: int, chosen: int, rejected: int
) -> EncodedPair:
    def text(tokens: int) -> list[int]:
        ids: list[int] = draw.integers(RESERVED, vocabulary, tokens).tolist()
        return ids

    plain = text(prompt)
    return EncodedPair(
        pair_id=str(number),
        prompts=tuple(text(INSTRUCTION) + plain for _ in range(VIEWS)),
        swapped=(False,) * VIEWS,
        plain_prompt=plain,
        chosen=text(chosen),
        rejected=text(rejected),
        truncated=0,
    )
