"""The objective on a batch: its invariants, with token log-probabilities as the leaves."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from amopo_core.config import Objective
from amopo_core.data.tables import text_id
from amopo_core.engine.batches import BatchMaker
from amopo_core.objective import PreferenceObjective
from amopo_core.training.encoding import EncodedPair

VIEWS = ("all_dimensions", "helpfulness", "correctness")
WEIGHTINGS = ["gaussian", "mean", "uniform", "fixed"]
seeds = st.integers(0, 2**31)


def objective(weighting="gaussian", views=VIEWS, **changes):
    numbers = {"beta": 0.8, "target_margin": 0.3, "temperature": 1.0, "supervised_weight": 0.0}
    fixed = {view: 1.0 + place for place, view in enumerate(views)} if weighting == "fixed" else {}
    return PreferenceObjective(Objective(weighting=weighting, fixed_weights=fixed, **numbers | changes), views)


def random_pair(generator, number, views=3):
    def length():
        return int(torch.randint(1, 6, (), generator=generator))

    prompts = tuple(
        [5] * length() if view == 0 or torch.rand((), generator=generator) < 0.7 else None for view in range(views)
    )
    chosen, rejected = [1] * length(), [2] * length()
    return EncodedPair(f"pair {number}", prompts, (False,) * views, [5], chosen, rejected, 0)


def random_pairs(seed, count=3, views=3):
    generator = torch.Generator().manual_seed(seed)
    return [random_pair(generator, number, views) for number in range(count)]


def collate(pairs, **options):
    maker = BatchMaker(**{"seed": 0, "generic_view": True, "supervised": False, "packed": False} | options)
    return maker(pairs, step=0, pairs_in_step=len(pairs))


def fake_logps(batch, pairs):
    """Token log-probabilities that depend on pair, view, side and place only, so that batches can be compared."""
    rows = []
    for slot in batch.slot_N.tolist():
        view_pair, side = divmod(slot, 2)
        view, b = divmod(view_pair, len(pairs))  # a plain prompt's slot is beyond the views: any pair, chosen
        key = int(text_id([pairs[b].pair_id, view, side])[:8], 16)
        length = len(pairs[b].rejected if side else pairs[b].chosen)
        row = -3 * torch.rand(length, generator=torch.Generator().manual_seed(key), dtype=torch.float64)
        rows.append(torch.cat([row, torch.zeros(batch.rows.response_mask_NR.shape[1] - length, dtype=torch.float64)]))
    return torch.stack(rows)


def run(pairs, which, **options):
    batch = collate(pairs, **options)
    return which(fake_logps(batch, pairs), batch)


@settings(max_examples=30)
@given(seed=seeds, weighting=st.sampled_from(WEIGHTINGS))
def test_a_pair_is_the_same_alone_and_among_others(seed, weighting):
    """Weights do not leak between pairs; the loss of a batch is the mean of the losses of its pairs."""
    pairs = random_pairs(seed)
    together = run(pairs, objective(weighting))

    for b, pair in enumerate(pairs):
        alone = run([pair], objective(weighting))
        assert_close(alone.loss_B[0], together.loss_B[b])
        assert_close(alone.weights_VB[:, 0], together.weights_VB[:, b])
    assert_close(together.weights_VB.sum(0), torch.ones(len(pairs), dtype=torch.float64))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_gradient_is_the_published_one(weighting):
    """-alpha_k beta (1 - sigmoid(u_k)) / (n_w B) on each chosen log-probability, + … / (n_l B) on each rejected one."""
    pairs = random_pairs(7, count=4)
    batch = collate(pairs)
    logps = fake_logps(batch, pairs).requires_grad_()
    which = objective(weighting)
    result = which(logps, batch)
    result.loss_B.mean().backward()

    for row, slot in enumerate(batch.slot_N.tolist()):
        view_pair, side = divmod(slot, 2)
        view, b = divmod(view_pair, len(pairs))
        chosen, rejected = result.mean_logps_VB2[view, b]
        u = which.config.beta * (chosen - rejected) - which.config.target_margin
        size = result.weights_VB[view, b] * which.config.beta * (1 - u.sigmoid()) / len(pairs)
        mask = batch.rows.response_mask_NR[row]
        expected = (size if side else -size) / mask.sum() * mask
        assert_close(logps.grad[row], expected)


def test_evaluation_is_deterministic_and_draws_are_not():
    pairs = random_pairs(3)
    one, other = collate(pairs), collate(pairs, seed=1)
    logps = fake_logps(one, pairs)

    assert not torch.equal(objective()(logps, one).weights_VB, objective()(logps, other).weights_VB)
    settled = [objective()(logps, batch, deterministic=True).weights_VB for batch in (one, other)]
    assert torch.equal(*settled)
    assert torch.equal(settled[0], objective("mean")(logps, one).weights_VB)


@pytest.mark.parametrize("generic_view", [True, False])
def test_the_supervised_term_is_added_once_outside_the_weighting(generic_view):
    pairs = [EncodedPair("a", ([5], [5, 5], [5]), (False,) * 3, [5], [1, 1], [2], 0)]
    batch = collate(pairs, supervised=True, generic_view=generic_view)
    logps = -torch.rand(batch.rows.response_mask_NR.shape, dtype=torch.float64).masked_fill(
        ~batch.rows.response_mask_NR, 0
    )
    without, with_it = (objective(supervised_weight=weight)(logps, batch).loss_B for weight in (0.0, 0.5))

    mean_chosen = logps[batch.supervised_row_B[0]].sum() / 2
    assert_close(with_it - without, -0.5 * mean_chosen[None])


@pytest.mark.parametrize("supervised_weight", [0.0, 0.5])
def test_a_weight_multiplies_the_loss_of_its_pair_and_nothing_else(supervised_weight):
    """The supervised term is a part of the pair's loss; 1 leaves every bit as it is."""
    pairs = random_pairs(11)
    weighed = [replace(pair, weight=weight) for pair, weight in zip(pairs, (1.0, 0.5, 0.25), strict=True)]
    which = objective(supervised_weight=supervised_weight)
    plain, weighted = (run(given, which, supervised=True) for given in (pairs, weighed))

    assert torch.equal(weighted.loss_B, plain.loss_B * torch.tensor([1.0, 0.5, 0.25]))
    assert torch.equal(weighted.weights_VB, plain.weights_VB)
    assert torch.equal(weighted.pairwise.loss_VB, plain.pairwise.loss_VB)


def test_permuting_views_permutes_losses_and_weights():
    logps, batch = torch.linspace(-2, -0.1, 6, dtype=torch.float64)[:, None], collate([
        EncodedPair("a", ([5], [5], [5]), (False,) * 3, [5], [1], [2], 0)
    ])  # fmt: skip
    order = [2, 0, 1]
    permuted_batch = replace(batch, eps_VB2=batch.eps_VB2[order])
    result = objective()(logps, batch)
    permuted = objective()(logps.view(3, 2, 1)[order].reshape(6, 1), permuted_batch)

    assert_close(permuted.weights_VB, result.weights_VB[order])
    assert_close(permuted.pairwise.loss_VB, result.pairwise.loss_VB[order])
    assert_close(permuted.loss_B, result.loss_B)
