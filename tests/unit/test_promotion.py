import pytest

from amopo_core.config import Promotion
from amopo_core.errors import UserError
from amopo_core.evaluation.bootstrap import Interval
from amopo_core.evaluation.comparison import JUDGE_SCORE, REWARD_ACCURACY, Comparison, Contrast
from amopo_core.promotion import decide

DIMENSIONS = ("helpfulness", "correctness")


def contrast(difference: float, half_width: float = 0.1) -> Contrast:
    side = Interval(3.0, 2.9, 3.1)
    return Contrast(side, side, Interval(difference, difference - half_width, difference + half_width))


def comparison(overall=0.5, helpfulness=0.5, correctness=0.5, prompts=100, metric=JUDGE_SCORE) -> Comparison:
    given = {"helpfulness": helpfulness, "correctness": correctness, "overall": overall}
    said = {name: None if value is None else contrast(value) for name, value in given.items()}
    return Comparison(metric, prompts, {name: said[name] for name in DIMENSIONS}, said["overall"])


def promotion(**tolerance: float) -> Promotion:
    return Promotion(weights={}, tolerance=tolerance, min_test_prompts=100)


def test_better_everywhere_is_promoted_with_every_reason():
    verdict = decide(comparison(), promotion(), DIMENSIONS)

    assert verdict.promote
    assert verdict.reasons == (
        "enough paired test prompts: 100, at least 100 asked for",
        "overall judge's score +0.500 [+0.400, +0.600]: better, the interval lies above zero",
        "helpfulness +0.500 [+0.400, +0.600]: kept within its tolerance of 0",
        "correctness +0.500 [+0.400, +0.600]: kept within its tolerance of 0",
    )


@pytest.mark.parametrize(
    ("given", "tolerance", "reason"),
    [
        ({"prompts": 99}, {}, "too few paired test prompts: 99, at least 100 asked for"),
        ({"overall": 0.05}, {}, "not shown to be better"),
        ({"overall": 0.1}, {}, "not shown to be better"),
        ({"overall": -0.5}, {}, "not shown to be better"),
        ({"overall": None}, {}, "not measured, because a dimension with weight is not"),
        ({"correctness": -0.01}, {}, "worse than its tolerance of 0"),
        ({"correctness": -0.31}, {"correctness": 0.3}, "worse than its tolerance of 0.3"),
        ({"correctness": -0.01}, {"helpfulness": 0.3}, "worse than its tolerance of 0"),
        ({"helpfulness": None}, {}, "helpfulness: not measured, no test pair differs in it"),
    ],
)
def test_a_no_names_its_reason(given, tolerance, reason):
    verdict = decide(comparison(**given), promotion(**tolerance), DIMENSIONS)

    assert not verdict.promote
    assert len([said for said in verdict.reasons if reason in said]) == 1


def test_a_loss_within_the_tolerance_is_allowed():
    assert decide(comparison(correctness=-0.3), promotion(correctness=0.3), DIMENSIONS).promote


def test_without_a_judge_the_verdict_says_so():
    verdict = decide(comparison(metric=REWARD_ACCURACY), promotion(), DIMENSIONS)

    assert verdict.promote
    assert verdict.reasons[0] == "no judge: ranking only"


@pytest.mark.parametrize("declared", [("helpfulness",), (*DIMENSIONS, "brevity"), ("helpfulness", "brevity")])
def test_dimensions_other_than_the_declared_ones_are_an_error(declared):
    with pytest.raises(UserError, match="the comparison holds the dimensions helpfulness, correctness; declared are"):
        decide(comparison(), promotion(), declared)
