import pytest

from amopo_core.config import Promotion
from amopo_core.errors import UserError
from amopo_core.evaluation.bootstrap import Interval
from amopo_core.evaluation.comparison import JUDGE_SCORE, REWARD_ACCURACY, Comparison, Contrast
from amopo_core.evaluation.guardrails import Guardrails
from amopo_core.evaluation.health import Health
from amopo_core.evaluation.regression import Regression
from amopo_core.promotion import Evidence, decide, pareto_note

DIMENSIONS = ("helpfulness", "correctness")


def contrast(difference: float, half_width: float = 0.1) -> Contrast:
    side = Interval(3.0, 2.9, 3.1)
    return Contrast(side, side, Interval(difference, difference - half_width, difference + half_width))


def comparison(overall=0.5, helpfulness=0.5, correctness=0.5, prompts=100, metric=JUDGE_SCORE) -> Comparison:
    given = {"helpfulness": helpfulness, "correctness": correctness, "overall": overall}
    said = {name: None if value is None else contrast(value) for name, value in given.items()}
    return Comparison(metric, prompts, {name: said[name] for name in DIMENSIONS}, said["overall"])


def promotion(**changed) -> Promotion:
    given = {
        "weights": {},
        "tolerance": {},
        "min_test_prompts": 100,
        "max_kl_base": 0.5,
        "max_kl_champion": 0.2,
        "max_length_ratio": 2.0,
        "max_repetition_rise": 0.1,
        "regression": "data/regression.jsonl",
        "max_regression": 0.25,
    }
    return Promotion(**given | changed)


def guardrails(**changed) -> Guardrails:
    differences = {"helpfulness": Interval(0.3, 0.1, 0.5), "correctness": Interval(-0.2, -0.6, 0.2)}
    given = {
        "incumbent": "champion",
        "kl": {"base": 0.4, "champion": 0.15},
        "unmeasured": {},
        "regression": Regression(12, "points of 1 to 5", differences),
    }
    return Guardrails(**given | changed)


def evidence(compared=None, *, before=(10.0, 0.05), after=(12.0, 0.06), **changed) -> Evidence:
    sides = (Health(tokens, repetition, ended=1.0) for tokens, repetition in (before, after))
    return Evidence(compared or comparison(), *sides, guardrails(**changed))


def test_better_everywhere_is_promoted_with_every_reason():
    verdict = decide(evidence(), promotion(), DIMENSIONS)

    assert verdict.promote
    assert verdict.reasons == (
        "enough paired test prompts: 100, at least 100 asked for",
        "overall judge's score +0.500 [+0.400, +0.600]: better, the interval lies above zero",
        "helpfulness +0.500 [+0.400, +0.600]: kept within its tolerance of 0",
        "correctness +0.500 [+0.400, +0.600]: kept within its tolerance of 0",
        "answers of 12.0 tokens, the champion's of 10.0: within 2 times longer or shorter",
        "share of repeated 3-grams 0.060, the champion's 0.050: within a rise of 0.1",
        "KL divergence from the base 0.400 nats per token: within the limit of 0.5",
        "KL divergence from the champion 0.150 nats per token: within the limit of 0.2",
        "regression set of 12 prompts, least in correctness: -0.200 [-0.600, +0.200] points of 1 to 5:"
        " kept within the tolerance of 0.25",
        "Pareto: dominates the champion, better in helpfulness, correctness, worse in none",
    )
    assert all(condition.holds for condition in verdict.conditions)
    assert [condition.name for condition in verdict.conditions] == [
        "prompts",
        "overall",
        "dimension/helpfulness",
        "dimension/correctness",
        "length",
        "repetition",
        "kl/base",
        "kl/champion",
        "regression",
    ]


@pytest.mark.parametrize(
    ("given", "tolerance", "reason"),
    [
        ({"prompts": 99}, {}, "too few paired test prompts: 99, at least 100 asked for"),
        ({"overall": 0.05}, {}, "not shown to be better"),
        ({"overall": 0.1}, {}, "not shown to be better"),
        ({"overall": -0.5}, {}, "not shown to be better"),
        ({"overall": None}, {}, "not measured, because a dimension with weight is not"),
        ({"correctness": -0.01}, {}, "on average worse than its tolerance of 0"),
        ({"correctness": -0.31}, {"correctness": 0.3}, "worse than its tolerance of 0.3"),
        ({"correctness": -0.01}, {"helpfulness": 0.3}, "worse than its tolerance of 0"),
        ({"helpfulness": None}, {}, "helpfulness: not measured, no test pair differs in it"),
    ],
)
def test_a_no_names_its_reason(given, tolerance, reason):
    verdict = decide(evidence(comparison(**given)), promotion(tolerance=tolerance), DIMENSIONS)

    assert not verdict.promote
    assert len([said for said in verdict.reasons if reason in said]) == 1


def test_a_loss_within_the_tolerance_is_allowed():
    assert decide(evidence(comparison(correctness=-0.3)), promotion(tolerance={"correctness": 0.3}), DIMENSIONS).promote


def test_without_a_judge_the_verdict_says_so():
    verdict = decide(evidence(comparison(metric=REWARD_ACCURACY)), promotion(), DIMENSIONS)

    assert verdict.promote
    assert verdict.reasons[0] == "no judge: ranking only"


@pytest.mark.parametrize("declared", [("helpfulness",), (*DIMENSIONS, "brevity"), ("helpfulness", "brevity")])
def test_dimensions_other_than_the_declared_ones_are_an_error(declared):
    with pytest.raises(UserError, match="the comparison holds the dimensions helpfulness, correctness; declared are"):
        decide(evidence(), promotion(), declared)


def failed(found: Evidence, **changed) -> list[str]:
    """What stands against a promotion, by name."""
    verdict = decide(found, promotion(**changed), DIMENSIONS)
    names = [condition.name for condition in verdict.conditions if not condition.holds]
    assert verdict.promote == (not names)
    return names


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"after": (20.1, 0.05)}, "length"),
        ({"after": (4.9, 0.05)}, "length"),
        ({"after": (0.0, 0.0)}, "length"),
        ({"before": (0.0, 0.0), "after": (3.0, 0.0)}, "length"),
        ({"after": (10.0, 0.151)}, "repetition"),
        ({"kl": {"base": 0.51, "champion": 0.1}}, "kl/base"),
        ({"kl": {"base": 0.4, "champion": 0.21}}, "kl/champion"),
        ({"kl": {"base": 0.4}, "unmeasured": {"champion": "it has other tokens"}}, "kl/champion"),
        ({"kl": {"champion": 0.1}}, "kl/base"),
        ({"regression": Regression(3, "points", {"correctness": Interval(-0.26, -1.0, 0.5)})}, "regression"),
    ],
)
def test_a_better_candidate_is_refused_for_what_it_paid_with(given, name):
    assert failed(evidence(**given)) == [name]


def test_the_limits_themselves_are_allowed():
    at_the_limit = evidence(
        before=(10.0, 0.0),
        after=(20.0, 0.1),
        kl={"base": 0.5, "champion": 0.2},
        regression=Regression(3, "points", {"correctness": Interval(-0.25, -1.0, 0.5)}),
    )

    assert failed(at_the_limit) == []
    assert failed(evidence(before=(10.0, 0.0), after=(5.0, 0.0))) == []


def test_limits_that_are_lifted_ask_for_nothing():
    lifted = dict.fromkeys(("max_kl_base", "max_kl_champion", "max_length_ratio", "max_repetition_rise"))
    far = evidence(after=(1000.0, 0.9), kl={}, unmeasured={"base": "it has other tokens"}, regression=None)

    verdict = decide(far, promotion(**lifted), DIMENSIONS)
    assert verdict.promote
    assert "no regression set" in verdict.reasons


def test_before_the_first_champion_its_divergence_is_not_asked_for():
    first = evidence(incumbent="base", kl={"base": 0.4}, unmeasured={"champion": "there is no champion yet"})

    assert failed(first) == []


def test_what_was_not_measured_says_why_and_how_to_go_on():
    verdict = decide(evidence(kl={}, unmeasured={"base": "it has other tokens"}), promotion(), DIMENSIONS)

    assert (
        "KL divergence from the base: not measured (it has other tokens); empty promotion.max_kl_base lifts the limit"
        in verdict.reasons
    )


@pytest.mark.parametrize(
    ("helpfulness", "correctness", "note"),
    [
        (0.5, 0.05, "dominates the champion, better in helpfulness, worse in none"),
        (0.5, -0.5, "trades off, better in helpfulness, worse in correctness than the champion"),
        (0.05, -0.5, "dominated by the champion, worse in correctness, better in none"),
        (0.05, -0.05, "no dimension is shown to differ from the champion's"),
        (0.1, -0.1, "no dimension is shown to differ from the champion's"),
        (0.5, None, "dominates the champion, better in helpfulness, worse in none"),
    ],
)
def test_the_pareto_note_counts_only_what_is_shown(helpfulness, correctness, note):
    assert pareto_note(comparison(helpfulness=helpfulness, correctness=correctness), "champion") == f"Pareto: {note}"
