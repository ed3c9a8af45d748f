"""How much each view of a pair counts: AMoPO's Gaussian over token probabilities, and its plain alternatives.

Axes: V = views, B = preference pairs. Every softmax runs over the views of one pair, never across pairs. No weight
carries a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenStatistics:
    """What the loss and the weights need of a response's token log-probabilities; all of the same shape (...)."""

    count: Tensor
    """Tokens of the response, the end token included."""
    sum_logps: Tensor
    """[nats]"""
    mean_logps: Tensor
    """[nats per token]"""
    prob_mean: Tensor
    """Mean probability of a token, 0 to 1; detached."""
    prob_std: Tensor
    """Unbiased standard deviation of the tokens' probabilities, 0 where there is one token; detached."""


def token_statistics(token_logps: Tensor, mask: Tensor) -> TokenStatistics:
    """Statistics over the last axis where `mask` is true; tokens are told by the mask, not by their probability.

    Args:
        token_logps: log-probability of each token [nats], shape (..., R).
        mask: true for the response's tokens, shape (..., R), at least one in each row.
    """
    count = mask.sum(-1)
    logps = token_logps.masked_fill(~mask, 0.0)
    sum_logps = logps.sum(-1)
    probs = logps.detach().exp().masked_fill(~mask, 0.0)
    prob_mean = probs.sum(-1) / count
    squares = (probs - prob_mean.unsqueeze(-1)).masked_fill(~mask, 0.0).square().sum(-1)
    prob_std = (squares / (count - 1).clamp(min=1)).sqrt()
    return TokenStatistics(count, sum_logps, sum_logps / count, prob_mean, prob_std)


def confidence_weights(
    prob_mean_VB2: Tensor, prob_std_VB2: Tensor, eps_VB2: Tensor, active_VB: Tensor, temperature: float
) -> Tensor:
    r"""alpha[:, b] = softmax over the active views of (z_chosen + z_rejected) / temperature, z = mean + std * eps.

    AMoPO (arXiv 2506.07165), the Gaussian fitted to the token probabilities. `eps = 0` is the weighting `mean`.

    Args:
        prob_mean_VB2, prob_std_VB2: of the chosen and the rejected response's token probabilities, 0 to 1.
        eps_VB2: draws from N(0, 1), one a response and step.
        active_VB: true where a view takes part.
        temperature: > 0; the weights approach `uniform` as it grows.

    Returns:
        Shape (V, B), summing to 1 over the active views of a pair; 0 for a view that is not active.
    """
    confidence_VB = (prob_mean_VB2 + prob_std_VB2 * eps_VB2).sum(-1).detach() / temperature
    weights_VB = confidence_VB.masked_fill(~active_VB, -torch.inf).softmax(0)
    return weights_VB.nan_to_num(0.0)  # a column without any active view is all nan


def given_weights(weight_V: Tensor, active_VB: Tensor) -> Tensor:
    """The given weights renormalised over the active views of each pair, shape (V, B).

    Active views whose given weights are all 0 share equally, so that no pair is lost without being counted.
    """
    weights_VB = weight_V.unsqueeze(-1) * active_VB
    without = weights_VB.sum(0) == 0
    weights_VB = torch.where(without, active_VB.to(weights_VB), weights_VB)
    return weights_VB / weights_VB.sum(0).clamp(min=torch.finfo(weights_VB.dtype).tiny)
