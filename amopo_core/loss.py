"""AMoPO's loss (arXiv 2506.07165; docs/method.md).

Axes: V = views, B = preference pairs in the batch.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F


class PairwiseLoss(NamedTuple):
    """The loss of every view of every pair before weighting, and the implicit rewards, which carry no gradient."""

    loss_VB: Tensor
    chosen_rewards_VB: Tensor
    rejected_rewards_VB: Tensor


def pairwise_loss(chosen_VB: Tensor, rejected_VB: Tensor, *, beta: float, target_margin: float) -> PairwiseLoss:
    r"""Reference-free loss of every view: -log sigmoid(beta * (chosen - rejected) - target_margin).

    `target_margin = 0` is AMoPO's Eq. (9); one view with a margin is SimPO.

    Args:
        chosen_VB, rejected_VB: mean log-probability of the response [nats per token].
        beta: reward per nat-per-token, > 0.
        target_margin: reward gap asked for (SimPO's gamma) [same unit as a reward].
    """
    gap_VB = beta * (chosen_VB - rejected_VB)
    return PairwiseLoss(
        -F.logsigmoid(gap_VB - target_margin), (beta * chosen_VB).detach(), (beta * rejected_VB).detach()
    )


def weighted_loss(loss_VB: Tensor, weights_VB: Tensor) -> Tensor:
    """loss[b] = sum over the views of weights[v, b] * loss[v, b], shape (B,); the weights are constants."""
    return (weights_VB.detach() * loss_VB).sum(0)
