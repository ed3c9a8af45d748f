from pathlib import Path
from random import Random
from statistics import fmean

from amopo_core.config import Playground
from amopo_core.judges.playground import JUDGE
from amopo_core.params_file import read_params
from amopo_core.playground.feedback import SCALES, Rater, feedback_rows, make_raters

PARAMS = read_params(Path(__file__).parents[2] / "params.yaml")
FEW = PARAMS.playground.model_copy(update={"prompts": 60})


def changed(**fields: object) -> Playground:
    return FEW.model_copy(update=fields)


def judged(row: dict[str, str]) -> dict[str, float]:
    return JUDGE.score([{"role": "user", "content": row["prompt"]}], row["response"])


def test_scales_are_those_that_the_source_declares():
    declared = {name: score.scale for name, score in PARAMS.sources["playground"].scores.items()}

    assert declared == SCALES
    assert set(SCALES) == set(PARAMS.dimensions)


def test_a_rating_by_hand():
    """Squeezed to 3 + 0.5 * (5 - 3) = 4, shifted to 4.2: that is 8 of 0 to 10 and 3.2, rounded 3, of 0 to 4."""
    rater = Rater("r1", bias=dict.fromkeys(SCALES, 0.2), spread=0.5, noise=0.0)

    assert rater.rate(dict.fromkeys(SCALES, 5.0), Random(0)) == {
        "helpfulness": 4,
        "correctness": 8,
        "instruction_following": 3,
    }


def test_ratings_stay_on_their_scales():
    rater, rng = Rater("r1", bias=dict.fromkeys(SCALES, 0.0), spread=1.0, noise=50.0), Random(0)
    rated = [rater.rate(dict.fromkeys(SCALES, 3.0), rng) for _ in range(100)]

    for name, (low, high) in SCALES.items():
        assert min(row[name] for row in rated) == low
        assert max(row[name] for row in rated) == high


def test_raters_without_faults_say_the_truth():
    for row in feedback_rows(changed(rater_noise=0.0, rater_bias=0.0, rater_spread=0.0)):
        for name, truth in judged(row).items():
            low, high = SCALES[name]
            assert abs(row["scores"][name] - (low + (high - low) * (truth - 1) / 4)) <= 0.5


def test_every_prompt_has_its_different_responses_and_a_share_is_rated_twice():
    rows = list(feedback_rows(changed(second_rater_share=0.5)))
    responses = {(row["prompt"], row["response"]) for row in rows}

    assert len(responses) == 60 * FEW.responses_per_prompt
    assert len({prompt for prompt, _ in responses}) == 60
    assert len({(row["prompt"], row["response"], row["rater"]) for row in rows}) == len(rows)
    assert 0.35 < len(rows) / len(responses) - 1 < 0.65  # 240 draws: nearly five standard errors


def test_the_seed_decides_every_row():
    assert list(feedback_rows(FEW)) == list(feedback_rows(FEW))
    assert list(feedback_rows(FEW)) != list(feedback_rows(changed(seed=FEW.seed + 1)))


def test_raters_differ_as_much_as_asked_for():
    spreads = [rater.spread for seed in range(200) for rater in make_raters(changed(seed=seed, rater_spread=0.3))]

    assert 0.7 <= min(spreads) < 0.75
    assert 1.25 < max(spreads) <= 1.3
    assert all(set(rater.bias.values()) == {0.0} for rater in make_raters(changed(rater_bias=0.0)))


def test_responses_are_middling_in_every_dimension():
    scores = [judged(row) for row in feedback_rows(FEW)]

    assert all(1.8 < fmean(row[name] for row in scores) < 4.2 for name in SCALES)
