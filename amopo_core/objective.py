"""The objective: from the token log-probabilities of a batch to its loss and what is worth logging.

Axes: V = views, B = pairs, 2 = the preferred and the other response of a view, N = sequences, R = response tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from amopo_core.config import Objective
from amopo_core.engine.batches import Batch
from amopo_core.loss import PairwiseLoss, pairwise_loss, weighted_loss
from amopo_core.weighting import TokenStatistics, confidence_weights, given_weights, token_statistics


@dataclass(frozen=True)
class ObjectiveResult:
    """The loss of each pair, with what it is made of."""

    loss_B: Tensor
    """Times the weight of the pair."""
    weights_VB: Tensor
    pairwise: PairwiseLoss
    mean_logps_VB2: Tensor
    """[nats per token]; 0 where a view is not active."""


class PreferenceObjective:
    """AMoPO for a given list of views: `Objective` holds the numbers, this applies them."""

    def __init__(self, config: Objective, views: Sequence[str]) -> None:
        self.config = config
        self.views = tuple(views)
        given = config.fixed_weights if config.weighting == "fixed" else dict.fromkeys(views, 1.0)
        self._given_weight_V = torch.tensor([given[view] for view in views], dtype=torch.float64)
        self._weight_V = self._given_weight_V

    def __call__(self, token_logps_NR: Tensor, batch: Batch, *, deterministic: bool = False) -> ObjectiveResult:
        """The loss of every pair of the batch, times the pair's weight, shape (B,).

        Args:
            token_logps_NR: of the batch's sequences [nats].
            batch: says which sequence is which view, pair and side.
            deterministic: take the weighting without its draws (evaluation).
        """
        statistics = token_statistics(token_logps_NR, batch.rows.response_mask_NR)
        mean_logps_VB2 = _scatter(statistics.mean_logps, batch)
        pairwise = pairwise_loss(
            mean_logps_VB2[..., 0],
            mean_logps_VB2[..., 1],
            beta=self.config.beta,
            target_margin=self.config.target_margin,
        )
        weights_VB = self._weights(statistics, batch, deterministic)
        loss_B = weighted_loss(pairwise.loss_VB, weights_VB)
        if self.config.supervised_weight:
            loss_B = loss_B - self.config.supervised_weight * statistics.mean_logps[batch.supervised_row_B]
        return ObjectiveResult(batch.weight_B.to(loss_B) * loss_B, weights_VB, pairwise, mean_logps_VB2.detach())

    def _given_V(self, like: Tensor) -> Tensor:
        """The given weights; copied to a device once, as that would wait for it."""
        if (self._weight_V.dtype, self._weight_V.device) != (like.dtype, like.device):
            self._weight_V = self._given_weight_V.to(like)
        return self._weight_V

    def _weights(self, statistics: TokenStatistics, batch: Batch, deterministic: bool) -> Tensor:
        if self.config.weighting in ("uniform", "fixed"):
            return given_weights(self._given_V(statistics.mean_logps), batch.active_VB)
        prob_mean_VB2 = _scatter(statistics.prob_mean, batch)
        eps_VB2 = batch.eps_VB2.to(prob_mean_VB2)
        if deterministic or self.config.weighting == "mean":
            eps_VB2 = torch.zeros_like(eps_VB2)
        prob_std_VB2 = _scatter(statistics.prob_std, batch)
        return confidence_weights(prob_mean_VB2, prob_std_VB2, eps_VB2, batch.active_VB, self.config.temperature)


def _scatter(values_N: Tensor, batch: Batch) -> Tensor:
    """The values of the batch's view sequences at their (view, pair, side), shape (V, B, 2); 0 elsewhere."""
    slots = batch.eps_VB2.numel()
    flat = values_N.new_zeros(slots + 1)  # the last takes what belongs to no view, so that nothing waits for a count
    return flat.index_put((batch.slot_N,), values_N)[:slots].view(batch.eps_VB2.shape)
