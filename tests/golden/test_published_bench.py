"""The bench's re-statement of the published step finds the published numbers, to 1e-6."""

import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from bench.training.published import IGNORED, collate, published_step, token_values
from bench.training.task import VIEWS, Lengths, Shape, Task, make_pairs

CASES = json.loads((Path(__file__).parent / "amopo_reference.json").read_text())["cases"]


@pytest.fixture(params=range(len(CASES)), ids=lambda number: f"case{number}")
def case(request):
    return CASES[request.param]


def step_of(case):
    """The step on the listed logits and draws; what it drew from, in the order of the rows."""
    logits = torch.tensor(case["logits"], dtype=torch.float64, requires_grad=True)
    eps = case["eps"][0::2] + case["eps"][1::2]  # it draws for all chosen first
    drawn_from = []

    def draw(mean, std):
        drawn_from.append((float(mean), float(std)))
        return mean + std * eps[len(drawn_from) - 1]

    step = published_step(logits, torch.tensor(case["labels"]), beta=case["beta"], margin=case["gamma"], draw=draw)
    half = len(drawn_from) // 2
    by_row = [moments for both in zip(drawn_from[:half], drawn_from[half:], strict=True) for moments in both]
    return logits, step, by_row


def close(actual, expected):
    expected = torch.tensor(expected, dtype=torch.float64)
    assert_close(torch.as_tensor(actual).detach().double().reshape(expected.shape), expected, rtol=1e-6, atol=1e-6)


def test_token_statistics(case):
    _, step, moments = step_of(case)
    expected = case["expected"]

    close(step.sum_logps_N, expected["sum_logps"])
    close(step.count_N, expected["response_tokens"])
    close(step.average_logps_N, expected["avg_logps"])
    close([mean for mean, _ in moments], expected["prob_mean"])
    close([std for _, std in moments], expected["prob_std_unbiased"])


def test_weights_losses_and_gradient(case):
    logits, step, _ = step_of(case)
    expected = case["expected"]
    (step.loss * VIEWS).backward()

    close(step.weights, expected["weights"])
    close(step.view_losses, expected["view_losses"])
    close(step.loss, expected["reference_loss_as_published"])
    close(step.loss * VIEWS, expected["loss_sum_over_views"])
    close(logits.grad, expected["grad_logits_of_sum_over_views"])


def test_the_listed_rows_are_how_it_orders_a_pair():
    """(view 0 chosen, view 0 rejected, view 1 chosen, …): responses alike in all views, prompts alike in both sides."""
    task = Task("published", Shape("tiny", 64), "float32", 1, 0, 1, Lengths((3, 3), (2, 2)))
    batch = collate(make_pairs(task))
    chosen = [row[row != IGNORED].tolist() for row in batch["labels"][0::2]]
    rejected = [row[row != IGNORED].tolist() for row in batch["labels"][1::2]]

    assert [len(case["labels"]) for case in CASES] == [len(batch["labels"])] * len(CASES) == [2 * VIEWS] * len(CASES)
    assert chosen == [chosen[0]] * VIEWS
    assert rejected == [rejected[0]] * VIEWS
    assert chosen[0] != rejected[0]


def test_draws_from_the_gaussian_of_the_token_probabilities(case):
    """Without given draws: another seed, other weights; the losses before weighting stay."""
    logits, labels = torch.tensor(case["logits"]), torch.tensor(case["labels"])
    torch.manual_seed(0)
    first = published_step(logits, labels, beta=case["beta"], margin=case["gamma"])
    second = published_step(logits, labels, beta=case["beta"], margin=case["gamma"])

    assert not torch.equal(first.weights, second.weights)
    assert_close(first.view_losses, second.view_losses, rtol=0, atol=0)
    close(first.weights.sum(), 1.0)


def test_reads_probabilities_behind_the_prompt_only(case):
    logits, labels = torch.tensor(case["logits"]), torch.tensor(case["labels"])
    *_, probs_NT, mask_NT = token_values(logits, labels)

    assert mask_NT.sum(-1).tolist() == [int(count) for count in case["expected"]["response_tokens"]]
    assert bool((probs_NT[mask_NT] > 0).all())
