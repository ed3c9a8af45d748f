"""Every quantity of the authors' published step, one pair a batch in float64, to 1e-6."""

import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from amopo_core.loss import pairwise_loss, weighted_loss
from amopo_core.weighting import confidence_weights, token_statistics

CASES = json.loads((Path(__file__).parent / "amopo_reference.json").read_text())["cases"]


@pytest.fixture(params=range(len(CASES)), ids=lambda number: f"case{number}")
def case(request):
    return CASES[request.param]


def forward(case):
    """Our step on the listed logits; rows are (view 0 chosen, view 0 rejected, view 1 chosen, …)."""
    logits = torch.tensor(case["logits"], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor(case["labels"])[:, 1:]
    mask = labels != -100
    logps = logits[:, :-1].log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    statistics = token_statistics(logps, mask)

    def by_view(values):
        return values.view(-1, 1, 2)

    means = by_view(statistics.mean_logps)
    pairwise = pairwise_loss(means[..., 0], means[..., 1], beta=case["beta"], target_margin=case["gamma"])
    weights = confidence_weights(
        by_view(statistics.prob_mean),
        by_view(statistics.prob_std),
        by_view(torch.tensor(case["eps"], dtype=torch.float64)),
        active_VB=torch.ones(len(case["views"]), 1, dtype=torch.bool),
        temperature=1.0,
    )
    return logits, statistics, pairwise, weights


def close(actual, expected):
    expected = torch.tensor(expected, dtype=torch.float64)
    assert_close(actual.detach().double().reshape(expected.shape), expected, rtol=1e-6, atol=1e-6)


def test_there_are_three_cases():
    assert len(CASES) == 3


def test_token_statistics(case):
    _, statistics, _, _ = forward(case)
    expected = case["expected"]

    close(statistics.sum_logps, expected["sum_logps"])
    close(statistics.count, expected["response_tokens"])
    close(statistics.mean_logps, expected["avg_logps"])
    close(statistics.prob_mean, expected["prob_mean"])
    close(statistics.prob_std, expected["prob_std_unbiased"])


def test_weights_losses_and_gradient(case):
    logits, _, pairwise, weights = forward(case)
    expected = case["expected"]
    loss = weighted_loss(pairwise.loss_VB, weights)
    loss.sum().backward()

    close(weights, expected["weights"])
    close(pairwise.loss_VB, expected["view_losses"])
    close(loss, [expected["loss_sum_over_views"]])
    close(logits.grad, expected["grad_logits_of_sum_over_views"])


def test_published_loss_is_ours_over_views_and_batch(case):
    """The published code divides the sum by views * batch once more; the loss here does not."""
    _, _, pairwise, weights = forward(case)

    close(
        weighted_loss(pairwise.loss_VB, weights) / len(case["views"]), [case["expected"]["reference_loss_as_published"]]
    )
