"""Sampling responses from a policy, every prompt under a seed of its own.

The draws of a prompt come from (seed, prompt) alone, so they are the same whatever else is in its batch and whichever
policy is asked: two policies answer with common random numbers, which makes their comparison paired.

Axes: N = sequences in the batch, T = tokens of the longest prompt, V = vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor

from amopo_core.engine.logps import pad_sequences
from amopo_core.policy import Policy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Generation:
    """What a policy answered."""

    response: str
    token_ids: Sequence[int]
    """Without the end token."""
    ended: bool
    """True where the end token came before the tokens ran out."""


def generate(
    policy: Policy,
    prompts: Sequence[list[int]],
    keys: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float,
    batch_size: int,
    seed: int,
) -> list[Generation]:
    """One generation a prompt, in the order given; prompts of like length run together.

    Args:
        policy: who answers.
        prompts: token ids, each at least one.
        keys: what names each prompt; with `seed` it decides the prompt's draws.
        max_new_tokens: tokens of a response at most, the end token included.
        temperature: divides the logits; 0 takes the likeliest token.
        batch_size: sequences in one forward pass.
        seed: seed of the draws.
    """
    generations: dict[int, Generation] = {}
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        generators = [_generator(seed, keys[row]) for row in rows]
        tokens = _respond(policy, [prompts[row] for row in rows], generators, max_new_tokens, temperature)
        generations |= {row: _generation(policy, ids) for row, ids in zip(rows, tokens, strict=True)}
        log.info("generated %d of %d responses", len(generations), len(prompts))
    return [generations[row] for row in range(len(prompts))]


def draw_tokens(logits_NV: Tensor, temperature: float, generators: Sequence[torch.Generator]) -> Tensor:
    """One token a sequence, shape (N,), from softmax(logits / temperature); temperature 0: the likeliest.

    Gumbel-max: argmax(logits / temperature + g), g = -log(e), e ~ Exp(1) from the sequence's own generator. Two
    policies that nearly agree then nearly always draw the same token.
    """
    if temperature == 0:
        return logits_NV.argmax(-1)
    vocabulary = logits_NV.shape[-1]
    waits_NV = torch.stack([torch.empty(vocabulary).exponential_(generator=generator) for generator in generators])
    return (logits_NV / temperature - waits_NV.log()).argmax(-1)


@torch.no_grad()
def _respond(
    policy: Policy,
    prompts: Sequence[list[int]],
    generators: Sequence[torch.Generator],
    max_new_tokens: int,
    temperature: float,
) -> list[list[int]]:
    """The sampled token ids of one batch, each list up to and with its end token."""
    batch = pad_sequences(prompts, [[] for _ in prompts]).to(policy.model.device)
    input_ids, mask_NT, cache = batch.input_ids_NT, batch.attention_mask_NT, None
    position_ids = (mask_NT.cumsum(-1) - 1).clamp(min=0)
    responses: list[list[int]] = [[] for _ in prompts]
    end = policy.tokenizer.eos_token_id
    for _ in range(max_new_tokens):
        output = policy.model(
            input_ids=input_ids,
            attention_mask=mask_NT,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        tokens_N = draw_tokens(output.logits[:, -1].float().cpu(), temperature, generators)
        for response, token in zip(responses, tokens_N.tolist(), strict=True):
            if end not in response[-1:]:
                response.append(token)
        if all(response[-1] == end for response in responses):
            break
        cache, input_ids = output.past_key_values, tokens_N[:, None].to(mask_NT.device)
        position_ids = position_ids[:, -1:] + 1
        mask_NT = torch.cat([mask_NT, mask_NT.new_ones(len(prompts), 1)], dim=-1)
    return responses


def _generation(policy: Policy, token_ids: list[int]) -> Generation:
    ended = token_ids[-1] == policy.tokenizer.eos_token_id
    token_ids = token_ids[:-1] if ended else token_ids
    response = policy.tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Generation(str(response), token_ids, ended)


def _generator(seed: int, key: str) -> torch.Generator:
    digest = sha256(f"{seed}:{key}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
