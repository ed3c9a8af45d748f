from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amopo_core.config import Params
from amopo_core.errors import UserError
from amopo_core.evaluation.comparison import (
    JUDGE_SCORE,
    REWARD_ACCURACY,
    REWARD_MARGIN,
    available_metrics,
    compare,
    mean_values,
    overall_weights,
)
from amopo_core.evaluation.measurement import Answer, Measurement, RankedPair


def answered(*scores: tuple[float, float]) -> Measurement:
    """One answer a prompt, scored in helpfulness and correctness."""
    answers = [
        Answer(f"q{place}", [{"role": "user", "content": "?"}], "!", 1, True, 0.0, {"helpfulness": h, "correctness": c})
        for place, (h, c) in enumerate(scores)
    ]
    return Measurement([], answers)


def ranked(*rows: tuple[str, float | None, float | None, float | None]) -> Measurement:
    """A pair a row: its prompt, chosen minus rejected log-probability, and the score gaps in both dimensions."""
    pairs = [
        RankedPair(f"p{place}", prompt, lead, None if lead is None else 0.0, {"helpfulness": h, "correctness": c}, 0)
        for place, (prompt, lead, h, c) in enumerate(rows)
    ]
    return Measurement(pairs, [Answer("q", [], "!", 1, True, 0.0, None)])


def weighing(params: Params, **weights: float) -> Params:
    return params.model_copy(update={"promotion": params.promotion.model_copy(update={"weights": weights})})


def test_judged_means_and_differences_by_hand(params):
    """Helpfulness 1, 3 -> 4, 4 (mean 2 -> 4), correctness 5, 3 -> 5, 2 (4 -> 3.5), overall 3 -> 3.75."""
    comparison = compare(answered((1, 5), (3, 3)), answered((4, 5), (4, 2)), params)

    assert comparison.metric == JUDGE_SCORE
    assert comparison.prompts == 2
    means = {
        name: (c.baseline.mean, c.candidate.mean, c.difference.mean)
        for name, c in [*comparison.dimensions.items(), ("overall", comparison.overall)]
    }
    assert means == {"helpfulness": (2, 4, 2), "correctness": (4, 3.5, -0.5), "overall": (3, 3.75, 0.75)}


def test_the_interval_of_the_difference_is_paired(params):
    """Scores scatter from 1 to 4 but every answer gains exactly 1: the difference is certain, the means are not."""
    scores = [(1.0 + place % 4, 2.0) for place in range(20)]
    helpfulness = compare(answered(*scores), answered(*((h + 1, c) for h, c in scores)), params).dimensions[
        "helpfulness"
    ]

    assert (helpfulness.difference.low, helpfulness.difference.high) == pytest.approx((1, 1))
    assert helpfulness.baseline.high - helpfulness.baseline.low > 0.5


def test_what_is_no_number_is_no_tie(params):
    whole, broken = ranked(("q0", 1.0, 3.0, 1.0)), ranked(("q0", float("nan"), 3.0, 1.0))

    with pytest.raises(UserError, match="test pair p0 has no finite log-probability"):
        compare(whole, broken, params)


def test_overall_is_weighted_by_the_promotion_section(params):
    """Weights 3 and 1 (the default): (3 * 2 + 1 * -0.5) / 4 = 1.375."""
    weighted = weighing(params, helpfulness=3.0)

    assert overall_weights(weighted) == pytest.approx([0.75, 0.25])
    overall = compare(answered((1, 5), (3, 3)), answered((4, 5), (4, 2)), weighted).overall
    assert overall.difference.mean == pytest.approx(1.375)


def test_accuracy_counts_each_dimension_in_its_own_order(params):
    """Leads +1, -1, +1, +1 (nats per token).

    helpfulness, gaps +, +, -, 0: right, wrong, wrong, tied -> 1/3. correctness, gaps -, -, unrated, +: wrong, right,
    nothing, right -> 2/3. Margins: (1 - 1 - 1)/3 = -1/3 and (-1 + 1 + 1)/3 = 1/3.
    """
    measurement = ranked(("a", 1.0, 2, -1), ("a", -1.0, 1, -2), ("b", 1.0, -1, None), ("c", 1.0, 0, 1))

    assert mean_values(measurement, params, REWARD_ACCURACY) == pytest.approx(
        {"helpfulness": 1 / 3, "correctness": 2 / 3}
    )
    assert mean_values(measurement, params, REWARD_MARGIN) == pytest.approx(
        {"helpfulness": -1 / 3, "correctness": 1 / 3}
    )


def test_without_a_judge_accuracy_decides(params):
    measurement = ranked(("a", 1.0, 2, -1))

    assert compare(measurement, measurement, params).metric == REWARD_ACCURACY
    assert available_metrics(measurement) == [REWARD_ACCURACY, REWARD_MARGIN]
    assert available_metrics(answered((1, 1)))[0] == JUDGE_SCORE


def test_what_one_policy_could_not_read_counts_for_neither(params):
    """The candidate reads only the first pair, so the baseline's mean is that of the first pair too."""
    baseline = ranked(("a", -1.0, 1, 1), ("b", 1.0, 1, 1))
    candidate = ranked(("a", 1.0, 1, 1), ("b", None, 1, 1))
    comparison = compare(baseline, candidate, params)

    assert comparison.prompts == 1
    assert comparison.overall.baseline.mean == 0
    assert comparison.overall.candidate.mean == 1


def test_a_dimension_in_which_every_pair_ties_is_not_measured(params):
    measurement = ranked(("a", 1.0, 1, 0), ("b", 1.0, 1, None))
    comparison = compare(measurement, measurement, params)

    assert comparison.dimensions["correctness"] is None
    assert comparison.overall is None
    assert comparison.dimensions["helpfulness"].baseline.mean == 1
    assert compare(measurement, measurement, weighing(params, correctness=0.0)).overall.candidate.mean == 1
    assert set(mean_values(measurement, params, REWARD_ACCURACY)) == {"helpfulness"}


def test_nothing_to_compare_is_not_zero(params):
    comparison = compare(ranked(), ranked(), params)

    assert comparison.prompts == 0
    assert comparison.overall is None
    assert set(comparison.dimensions.values()) == {None}


def test_other_prompts_are_refused(params):
    with pytest.raises(UserError, match=r"different examples \(2 and 1, 1 in common\)"):
        compare(answered((1, 1), (2, 2)), answered((1, 1)), params)


def test_a_test_set_rated_anew_is_refused(params):
    with pytest.raises(UserError, match="different examples"):
        compare(ranked(("a", 1.0, 1, 1)), ranked(("a", 1.0, -1, 1)), params)


def test_a_judged_and_an_unjudged_policy_are_refused(params):
    with pytest.raises(UserError, match="one policy was measured with a judge"):
        compare(answered((1, 1)), ranked(("a", 1.0, 1, 1)), params)


@pytest.mark.parametrize("scores", [None, {"helpfulness": 3.0}])
def test_a_missing_score_is_an_error_and_never_zero(params, scores):
    whole = answered((1, 1), (2, 2))
    holed = replace(whole, answers=[whole.answers[0], replace(whole.answers[1], scores=scores)])

    with pytest.raises(UserError, match="answer to prompt q1 has no judge's score"):
        compare(whole, holed, params)


scores = st.tuples(st.integers(1, 5), st.integers(1, 5))


@given(st.lists(st.tuples(scores, scores), min_size=1, max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_turning_the_sides_turns_the_sign(params, rows):
    before, after = answered(*(row[0] for row in rows)), answered(*(row[1] for row in rows))
    there, back = compare(before, after, params).overall, compare(after, before, params).overall

    assert there.difference.mean == pytest.approx(-back.difference.mean)
    assert (there.difference.low, there.difference.high) == pytest.approx((-back.difference.high, -back.difference.low))
    assert there.difference.low - 1e-9 <= there.difference.mean <= there.difference.high + 1e-9


@given(st.dictionaries(st.sampled_from(["helpfulness", "correctness"]), st.floats(0.01, 100)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_weights_sum_to_one(params, weights):
    assert np.sum(overall_weights(weighing(params, **weights))) == pytest.approx(1)
