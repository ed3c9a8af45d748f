"""How far a policy has moved from another: the KL divergence at every token of its own answers.

Axes: N = answers in a batch, T = tokens of the longest sequence, R = tokens of the longest answer, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from amopo_core.engine.logps import Sequences, pad_sequences
from amopo_core.policy import Policy

_CELLS = 1 << 25
"""Logits of one policy held at once: 128 MiB in float32."""


def read_alike(policy: Policy, reference: Policy) -> bool:
    """Whether a token is the same text for both: without that, there is no divergence between them."""
    return bool(policy.tokenizer.get_vocab() == reference.tokenizer.get_vocab())


def divergences(
    policy: Policy, reference: Policy, prompts: Sequence[list[int]], answers: Sequence[list[int]], batch_size: int
) -> list[float]:
    """KL(policy || reference), summed over the tokens of each answer [nats], in the order given.

    sum_t sum_v p(v | x, y_<t) [log p(v | x, y_<t) - log q(v | x, y_<t)]. At each position it is exact, not the
    difference of two log-probabilities of the token that was drawn; over answers that the policy drew at temperature 1
    the mean of these sums is an estimate without bias of the divergence between the two policies' answers.

    Args:
        policy: who gave the answers.
        reference: whom it is held against; it reads alike.
        prompts: token ids, each at least one.
        answers: token ids, each at least one, the end token included where the policy ended.
        batch_size: answers in one forward pass, at most.
    """
    found = [0.0] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]) + len(answers[row]))
    words = min(policy.model.config.get_text_config().vocab_size, reference.model.config.get_text_config().vocab_size)
    longest = max((len(answer) for answer in answers), default=1)
    at_once = max(1, min(batch_size, _CELLS // (words * (longest + 1))))
    for start in range(0, len(order), at_once):
        rows = order[start : start + at_once]
        batch = pad_sequences([prompts[row] for row in rows], [answers[row] for row in rows])
        sums_N = _kl_sums(_logps(policy, batch, words), _logps(reference, batch, words), batch)
        for row, nats in zip(rows, sums_N.tolist(), strict=True):
            found[row] = nats
    return found


def _kl_sums(logp_NRV: Tensor, logq_NRV: Tensor, batch: Sequences) -> Tensor:
    """Shape (N,) [nats]; a word that the policy never says counts nothing, whatever the reference makes of it."""
    p_NRV = logp_NRV.exp()
    kl_NR = torch.where(p_NRV > 0, p_NRV * (logp_NRV - logq_NRV), 0.0).sum(-1)
    return kl_NR.masked_fill(~batch.response_mask_NR.to(kl_NR.device), 0.0).double().sum(-1)


@torch.no_grad()
def _logps(policy: Policy, batch: Sequences, words: int) -> Tensor:
    """Log-probabilities of the first `words` words at each token of the answers, shape (N, R, V)."""
    there = batch.to(policy.model.device)
    mask_NT = there.attention_mask_NT
    logits_NRV = policy.model(
        input_ids=there.input_ids_NT,
        attention_mask=mask_NT,
        position_ids=(mask_NT.cumsum(-1) - 1).clamp(min=0),
        logits_to_keep=batch.response_mask_NR.shape[1] + 1,
        use_cache=False,
    ).logits[:, :-1, :words]
    logps_NRV: Tensor = logits_NRV.float().log_softmax(-1)
    return logps_NRV
