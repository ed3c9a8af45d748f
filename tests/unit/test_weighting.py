import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from amopo_core.weighting import confidence_weights, given_weights, token_statistics

seeds = st.integers(0, 2**31)


def random_inputs(seed, views, pairs):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.rand(views, pairs, 2, generator=generator, dtype=torch.float64)
    std = torch.rand(views, pairs, 2, generator=generator, dtype=torch.float64) / 2
    eps = torch.randn(views, pairs, 2, generator=generator, dtype=torch.float64)
    active = torch.rand(views, pairs, generator=generator) < 0.7
    active[0] = True
    return mean, std, eps, active


def test_statistics_by_hand():
    """Probabilities 0.5 and 0.25: mean 0.375, unbiased std 0.125 * sqrt(2); the masked token counts nowhere."""
    logps = torch.tensor([[0.5, 0.25, 1.0]]).log()
    statistics = token_statistics(logps, torch.tensor([[True, True, False]]))

    assert_close(statistics.count, torch.tensor([2]))
    assert_close(statistics.mean_logps, torch.tensor([(0.5 * 0.25) ** 0.5]).log())
    assert_close(statistics.prob_mean, torch.tensor([0.375]))
    assert_close(statistics.prob_std, torch.tensor([0.125 * 2**0.5]))


def test_one_token_has_no_spread():
    statistics = token_statistics(torch.tensor([[0.3, 0.9]]).log(), torch.tensor([[True, False]]))

    assert_close(statistics.prob_std, torch.tensor([0.0]))


def test_a_token_of_probability_zero_is_still_a_token():
    """The published code selects tokens by `prob != 0` and loses one whose probability underflows."""
    statistics = token_statistics(torch.tensor([[-1000.0, 0.0]]), torch.tensor([[True, True]]))

    assert_close(statistics.prob_mean, torch.tensor([0.5]))
    assert_close(statistics.mean_logps, torch.tensor([-500.0]))


@given(seed=seeds, tokens=st.integers(1, 6), padding=st.integers(0, 6))
def test_padding_changes_no_statistic(seed, tokens, padding):
    generator = torch.Generator().manual_seed(seed)
    logps = -torch.rand(1, tokens + padding, generator=generator, dtype=torch.float64)
    mask = torch.arange(tokens + padding)[None] < tokens
    padded = token_statistics(logps, mask)
    sliced = token_statistics(logps[:, :tokens], mask[:, :tokens])

    for name in ("count", "sum_logps", "mean_logps", "prob_mean", "prob_std"):
        assert_close(getattr(padded, name), getattr(sliced, name))


def test_weights_by_hand():
    """z = 0.5 + 0.1 * 1 on both sides of view 0, 0.5 on those of view 1: softmax of (1.2, 1.0)."""
    mean = torch.full((2, 1, 2), 0.5)
    std = torch.full((2, 1, 2), 0.1)
    eps = torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]]])
    weights = confidence_weights(mean, std, eps, torch.ones(2, 1, dtype=torch.bool), temperature=1.0)

    assert_close(weights, torch.tensor([[1.2], [1.0]]).softmax(0))


@given(seed=seeds, views=st.integers(1, 5), pairs=st.integers(1, 4), temperature=st.floats(0.1, 10))
def test_weights_of_a_pair_sum_to_one_and_ignore_other_pairs(seed, views, pairs, temperature):
    mean, std, eps, active = random_inputs(seed, views, pairs)
    together = confidence_weights(mean, std, eps, active, temperature)

    assert_close(together.sum(0), torch.ones(pairs, dtype=torch.float64))
    assert (together[~active] == 0).all()
    for b in range(pairs):
        one = slice(b, b + 1)
        alone = confidence_weights(mean[:, one], std[:, one], eps[:, one], active[:, one], temperature)
        assert_close(alone, together[:, one])


@given(seed=seeds, views=st.integers(2, 5), order=st.randoms(use_true_random=False))
def test_permuting_views_permutes_weights(seed, views, order):
    mean, std, eps, active = random_inputs(seed, views, 3)
    permutation = list(range(views))
    order.shuffle(permutation)
    permuted = confidence_weights(mean[permutation], std[permutation], eps[permutation], active[permutation], 1.0)

    assert_close(permuted, confidence_weights(mean, std, eps, active, 1.0)[permutation])


def test_higher_confidence_gives_more_weight():
    mean = torch.tensor([[[0.9, 0.9]], [[0.1, 0.1]]])
    weights = confidence_weights(mean, torch.zeros(2, 1, 2), torch.zeros(2, 1, 2), torch.ones(2, 1).bool(), 1.0)

    assert weights[0] > weights[1]


def test_a_pair_without_an_active_view_weighs_nothing():
    inputs = torch.zeros(2, 1, 2)

    assert_close(confidence_weights(inputs, inputs, inputs, torch.zeros(2, 1).bool(), 1.0), torch.zeros(2, 1))


def test_weights_receive_no_gradient():
    mean = torch.rand(2, 1, 2, requires_grad=True)
    weights = confidence_weights(mean, mean, torch.ones(2, 1, 2), torch.ones(2, 1).bool(), 1.0)

    assert not weights.requires_grad


def test_given_weights_are_renormalised_over_the_active_views():
    """Given 1, 2, 3: all active 1/6, 2/6, 3/6; without the last 1/3, 2/3; only a zero one active: 1."""
    active = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]]).bool()
    weights = given_weights(torch.tensor([1.0, 2.0, 3.0, 0.0]), active)

    expected = torch.tensor([[1 / 6, 1 / 3, 0], [1 / 3, 2 / 3, 0], [1 / 2, 0, 0], [0, 0, 1]])
    assert_close(weights, expected)
