"""A small language model trained from scratch on encoded conversations, the same bits each time.

Axes: N = sequences in a batch, R = tokens of the longest response.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from amopo_core.engine.logps import pad_sequences, token_logps

log = logging.getLogger(__name__)

WARMUP_STEPS = 50
LOG_EVERY = 100


@dataclass(frozen=True)
class Conversation:
    """A prompt and its response as token ids, the end token included."""

    prompt: list[int]
    response: list[int]


def pretrain(
    config: PreTrainedConfig,
    conversations: Sequence[Conversation],
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    threads: int,
) -> PreTrainedModel:
    """A model that continues prompts as `conversations` do.

    The loss of a step is the mean negative log-likelihood of its response tokens [nats per token]. AdamW, linear
    warm-up, cosine decay to zero.

    Args:
        config: the architecture; the weights are drawn from `seed`.
        conversations: drawn without replacement until all were seen, then anew.
        steps: optimizer steps.
        batch: conversations in a step.
        learning_rate: its peak.
        seed: seed of weights and order.
        threads: CPU threads; the last bits of the weights depend on them.
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # A debugging aid of the deterministic mode: it costs time and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = LambdaLR(optimizer, lambda step: _rate(step, steps))
    for step, rows in zip(range(1, steps + 1), _batches(len(conversations), batch, seed), strict=False):
        loss = _loss(model, [conversations[row] for row in rows])
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % LOG_EVERY == 0 or step == steps:
            log.info("base policy: step %d of %d, loss %.3f nats per token", step, steps, loss.item())
    return model.eval()


def _loss(model: PreTrainedModel, batch: Sequence[Conversation]) -> torch.Tensor:
    sequences = pad_sequences([row.prompt for row in batch], [row.response for row in batch])
    logps_NR = token_logps(model, sequences)
    return -logps_NR.sum() / sequences.response_mask_NR.sum()


def _batches(count: int, batch: int, seed: int) -> Iterator[list[int]]:
    """Rows of `batch` conversations each, endlessly, every epoch in a new order."""
    generator = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < batch:
            waiting += torch.randperm(count, generator=generator).tolist()
        yield waiting[:batch]
        waiting = waiting[batch:]


def _rate(step: int, steps: int) -> float:
    """Share of the peak learning rate at a step."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps))
