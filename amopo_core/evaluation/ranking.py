"""Ranking: whether a policy finds the better response of a pair likelier than the worse one, dimension by dimension."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from amopo_core.chat import ChatEncoder
from amopo_core.data.tables import Pair
from amopo_core.engine.forward import PolicyForward, best_forward
from amopo_core.errors import UserError
from amopo_core.evaluation.measurement import RankedPair
from amopo_core.policy import Policy

log = logging.getLogger(__name__)

_SIDES = ("chosen", "rejected")
_BATCHES_A_LINE = 8
"""Forward passes between two lines of progress."""


def rank(
    policy: Policy, encoder: ChatEncoder, pairs: Sequence[Pair], instruction: str | None, batch_size: int
) -> list[RankedPair]:
    """Every pair with its two mean log-probabilities, in the order given.

    Args:
        policy: who is asked.
        encoder: encodes for it.
        pairs: test pairs.
        instruction: what is put into each prompt; None: nothing.
        batch_size: sequences in one forward pass.

    Raises:
        UserError: the policy gives a response no finite log-probability.
    """
    ranked: list[RankedPair] = []
    pairs_a_line = max(1, _BATCHES_A_LINE * batch_size // 2)
    forward = best_forward(policy.model, policy.context)
    try:
        for start in range(0, len(pairs), pairs_a_line):
            chunk = pairs[start : start + pairs_a_line]
            encoded = [_encode(encoder, pair, instruction, policy.context) for pair in chunk]
            ranked += _rank(policy, forward, chunk, encoded, batch_size)
            log.info("ranked %d of %d pairs", len(ranked), len(pairs))
    finally:
        forward.detach()
    return ranked


@torch.no_grad()
def mean_logps(
    policy: Policy,
    forward: PolicyForward,
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    batch_size: int,
    names: Sequence[str],
) -> Tensor:
    """Mean log-probability of each response, shape (N,) [nats per token]; sequences of like length run together.

    Args:
        policy: who is asked.
        forward: its forward pass.
        prompts: token ids.
        responses: token ids, each at least one.
        batch_size: sequences in one forward pass.
        names: what each response is, and where it stands, for messages.

    Raises:
        UserError: one is not finite: as a number it would count as a tie, and a metric would lack it in silence.
    """
    means_N = torch.zeros(len(prompts))
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]) + len(responses[row]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = forward.rows([prompts[row] for row in rows], [responses[row] for row in rows]).to(policy.model.device)
        lengths_N = batch.response_mask_NR.sum(-1)
        means_N[rows] = (forward.token_logps(policy.model, batch).sum(-1) / lengths_N).float().cpu()
    for row in (~means_N.isfinite()).nonzero().flatten().tolist():
        raise UserError(
            f"the policy {policy.model.name_or_path} gives {names[row]} the mean log-probability {means_N[row]:g};"
            " expected a finite number. Its weights are damaged or have diverged: train it again, with a lower"
            " train.learning_rate where it did"
        )
    return means_N


@dataclass(frozen=True)
class _EncodedPair:
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    truncated: int


def _rank(
    policy: Policy,
    forward: PolicyForward,
    pairs: Sequence[Pair],
    encoded: Sequence[_EncodedPair | None],
    batch_size: int,
) -> list[RankedPair]:
    read = [(pair, ids) for pair, ids in zip(pairs, encoded, strict=True) if ids is not None]
    logps = iter(_logps(policy, forward, read, batch_size))
    return [_ranked(pair, ids, next(logps) if ids else None) for pair, ids in zip(pairs, encoded, strict=True)]


def _logps(
    policy: Policy, forward: PolicyForward, pairs: Sequence[tuple[Pair, _EncodedPair]], batch_size: int
) -> list[list[float]]:
    """Mean log-probability of the chosen and of the rejected response of each pair [nats per token]."""
    prompts = [ids.prompt for _, ids in pairs for _side in _SIDES]
    responses = [response for _, ids in pairs for response in (ids.chosen, ids.rejected)]
    names = [f"the {side} response of test pair {pair.pair_id}" for pair, _ in pairs for side in _SIDES]
    return mean_logps(policy, forward, prompts, responses, batch_size, names).view(-1, 2).tolist()


def _encode(encoder: ChatEncoder, pair: Pair, instruction: str | None, context: int) -> _EncodedPair | None:
    """The pair's ids, the prompt shortened for its longer response; None where it does not fit."""
    chosen, rejected = encoder.response(pair.chosen), encoder.response(pair.rejected)
    prompt = encoder.prompt(pair.prompt, instruction, context - max(len(chosen), len(rejected)))
    return _EncodedPair(prompt.ids, chosen, rejected, prompt.truncated) if prompt else None


def _ranked(pair: Pair, encoded: _EncodedPair | None, logps: Sequence[float] | None) -> RankedPair:
    chosen_logp, rejected_logp = logps or (None, None)
    return RankedPair(
        pair_id=pair.pair_id,
        prompt_id=pair.prompt_id,
        chosen_logp=chosen_logp,
        rejected_logp=rejected_logp,
        score_gaps={name: pair.gap(name) for name in pair.chosen_scores},
        truncated=encoded.truncated if encoded else 0,
    )
