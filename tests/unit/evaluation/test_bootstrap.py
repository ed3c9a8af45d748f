import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amopo_core.evaluation import bootstrap
from amopo_core.evaluation.bootstrap import interval, resampled_means

columns = st.lists(
    st.tuples(st.sampled_from("abcde"), st.floats(-5, 5), st.one_of(st.just(np.nan), st.floats(-5, 5))),
    min_size=1,
    max_size=12,
)


def test_prompts_are_drawn_whole():
    """Prompt a holds one 0, prompt b three 1s: draws aa, ab, ba, bb have the means 0, 3/4, 3/4, 1."""
    means = resampled_means(np.array([[0.0], [1.0], [1.0], [1.0]]), ["a", "b", "b", "b"], draws=4000, seed=0)[:, 0]

    values, counts = np.unique(means, return_counts=True)
    assert values.tolist() == [0.0, 0.75, 1.0]
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_three_prompts_have_the_ten_means_of_the_exhaustive_enumeration():
    """Multinomial(3, 1/3) over the values 0, 1, 5: every multiset of three, with its multinomial probability."""
    means = resampled_means(np.array([[0.0], [1.0], [5.0]]), ["a", "b", "c"], draws=27_000, seed=1)[:, 0]

    drawn = [a + b + c for a in (0, 1, 5) for b in (0, 1, 5) for c in (0, 1, 5)]
    expected = {total: drawn.count(total) / 27 for total in drawn}
    values, counts = np.unique(np.round(3 * means), return_counts=True)
    assert dict(zip(values.astype(int).tolist(), counts / 27_000, strict=True)) == pytest.approx(expected, abs=0.01)


def test_a_draw_without_a_value_says_nothing():
    """Only prompt a has a value: a draw gives it, or NaN where only b was drawn (a quarter of the draws)."""
    means = resampled_means(np.array([[2.0], [np.nan]]), ["a", "b"], draws=4000, seed=0)[:, 0]

    assert set(means[~np.isnan(means)]) == {2.0}
    assert np.isnan(means).mean() == pytest.approx(0.25, abs=0.03)


def test_no_examples_give_no_means():
    assert np.isnan(resampled_means(np.empty((0, 2)), [], draws=3, seed=0)).tolist() == [[True, True]] * 3


def test_the_interval_cuts_equal_tails():
    found = interval(50.0, np.arange(101.0), confidence=0.9)

    assert (found.mean, found.low, found.high) == pytest.approx((50, 5, 95))


def test_the_interval_leaves_nans_out():
    assert interval(1.0, np.array([np.nan, 1.0, 3.0]), confidence=0.5) == bootstrap.Interval(1.0, 1.5, 2.5)


@given(columns)
def test_resampled_means_stay_within_the_values(rows):
    values = np.array([row[1:] for row in rows])
    means = resampled_means(values, [row[0] for row in rows], draws=20, seed=0)

    for column in range(2):
        seen = values[:, column][~np.isnan(values[:, column])]
        drawn = means[:, column][~np.isnan(means[:, column])]
        assert len(seen) > 0 or len(drawn) == 0
        assert all(seen.min() - 1e-9 <= mean <= seen.max() + 1e-9 for mean in drawn)


@given(columns)
def test_repeating_every_example_changes_nothing(rows):
    """Twice the examples of the same prompts are no more evidence."""
    values, prompts = np.array([row[1:] for row in rows]), [row[0] for row in rows]
    once = resampled_means(values, prompts, draws=20, seed=3)
    twice = resampled_means(np.vstack([values, values]), prompts * 2, draws=20, seed=3)

    np.testing.assert_allclose(once, twice, atol=1e-12)


def test_bounding_the_memory_changes_nothing(monkeypatch):
    values, prompts = np.arange(12.0).reshape(6, 2), list("aabbcd")
    whole = resampled_means(values, prompts, draws=50, seed=5)
    monkeypatch.setattr(bootstrap, "_CELLS_AT_ONCE", 7)

    np.testing.assert_array_equal(resampled_means(values, prompts, draws=50, seed=5), whole)
