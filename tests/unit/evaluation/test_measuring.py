from dataclasses import replace

import pytest

from amopo_core.data.tables import Pair, text_id
from amopo_core.errors import UserError
from amopo_core.evaluation.measuring import held_out_prompts, judged_scores, measure, repetition
from amopo_core.policy import load_policy


def pair(prompt_id: str, response: str = "Yes.") -> Pair:
    prompt = [{"role": "user", "content": f"Question {prompt_id}?"}]
    scores = {"helpfulness": 4.0, "correctness": 2.0}, {"helpfulness": 1.0, "correctness": 2.0}
    return Pair(f"{prompt_id}-{response}", prompt_id, prompt, response, "No, thanks.", *scores)


PAIRS = [pair("c"), pair("a"), pair("b"), pair("a", "Oh.")]


def with_view(params, *, prompt_view: str, instruction_at: str = "start"):
    evaluation = params.evaluation.model_copy(update={"prompt_view": prompt_view})
    views = params.views.model_copy(update={"instruction_at": instruction_at})
    return params.model_copy(update={"evaluation": evaluation, "views": views})


class LengthJudge:
    """Scores the length; brings as many prompts as it was given."""

    def __init__(self, own: int = 0):
        self.own = [[{"role": "user", "content": f"Held out {place}?"}] for place in range(own)]

    def prompts(self, playground, n):
        return self.own[:n]

    def score(self, prompt, response):
        return {"helpfulness": 5.0 if len(response) > 4 else 1.0, "correctness": 3, "extra": 99.0}


@pytest.mark.parametrize(
    ("token_ids", "share"),
    [([], 0), ([1, 2], 0), ([1, 2, 3], 0), ([1, 2, 3, 1, 2, 3], 0.25), ([7, 7, 7, 7, 7], 2 / 3), ([1, 2, 3, 4, 5], 0)],
)
def test_repetition_by_hand(token_ids, share):
    """123123 has the 3-grams 123 231 312 123: one of four came before; 77777 has 777 three times: two of three."""
    assert repetition(token_ids) == pytest.approx(share)


def test_the_test_splits_prompts_are_asked_once_each_in_the_order_of_their_ids(params):
    assert list(held_out_prompts(PAIRS, None, params)) == ["a", "b", "c"]
    assert list(held_out_prompts(PAIRS, LengthJudge(own=0), params)) == ["a", "b", "c"]


def test_the_judges_own_prompts_come_first(params):
    judge = LengthJudge(own=9)
    prompts = held_out_prompts(PAIRS, judge, params)

    assert list(prompts) == [text_id(prompt) for prompt in judge.own[:5]]
    assert list(prompts.values()) == judge.own[:5]


def test_no_more_prompts_than_asked_for(params):
    few = params.model_copy(update={"evaluation": params.evaluation.model_copy(update={"max_prompts": 2})})

    assert list(held_out_prompts(PAIRS, None, few)) == ["a", "b"]


def test_no_prompt_at_all_is_refused(params):
    with pytest.raises(UserError, match="the test split is empty"):
        held_out_prompts([], None, params)


def test_scores_are_those_of_the_declared_dimensions():
    assert judged_scores(LengthJudge(), [], "long enough", ["correctness", "helpfulness"]) == {
        "correctness": 3.0,
        "helpfulness": 5.0,
    }


def test_a_dimension_that_the_judge_does_not_score_is_refused():
    with pytest.raises(UserError, match=r"no score for brevity \(it scores helpfulness, correctness, extra\)"):
        judged_scores(LengthJudge(), [], "x", ["helpfulness", "brevity"])


@pytest.mark.parametrize("score", [0.99, 5.01, float("nan"), float("inf")])
def test_a_score_outside_the_scale_is_refused(score):
    class Strange(LengthJudge):
        def score(self, prompt, response):
            return {"helpfulness": score}

    with pytest.raises(UserError, match=r"helpfulness scored .*; expected 1 to 5"):
        judged_scores(Strange(), [], "x", ["helpfulness"])


def test_a_measurement_holds_every_pair_and_every_answer(tiny_policy_folder, params):
    measurement = measure(load_policy(tiny_policy_folder), PAIRS, LengthJudge(own=3), params)

    assert [ranked.pair_id for ranked in measurement.pairs] == [given.pair_id for given in PAIRS]
    assert len(measurement.answers) == 3
    for answer in measurement.answers:
        assert answer.tokens == 8 - answer.ended or answer.ended
        assert answer.scores == {"helpfulness": 5.0 if len(answer.response) > 4 else 1.0, "correctness": 3.0}


def test_ranking_and_answers_have_the_instruction_where_training_had_it(tiny_policy_folder, params):
    """Measured by hand: the same prompts with the instruction spelt out in their text, asked plainly."""
    policy, spelt = load_policy(tiny_policy_folder), "\n\nAim for helpfulness 5 of 5: helps."
    behind = with_view(params, prompt_view="helpfulness@5", instruction_at="end")
    by_hand = [replace(row, prompt=[row.prompt[0] | {"content": row.prompt[0]["content"] + spelt}]) for row in PAIRS]

    found, expected = measure(policy, PAIRS, None, behind), measure(policy, by_hand, None, params)

    assert found.pairs == expected.pairs
    assert [answer.response for answer in found.answers] == [answer.response for answer in expected.answers]
    assert found.pairs != measure(policy, PAIRS, None, with_view(params, prompt_view="helpfulness@5")).pairs


def test_without_a_judge_nothing_is_scored(tiny_policy_folder, params):
    measurement = measure(load_policy(tiny_policy_folder), PAIRS, None, params)

    assert [answer.prompt_id for answer in measurement.answers] == ["a", "b", "c"]
    assert not measurement.judged


def test_generations_longer_than_the_context_are_refused(tiny_policy_folder, params):
    wide = params.model_copy(update={"evaluation": params.evaluation.model_copy(update={"max_new_tokens": 256})})

    with pytest.raises(
        UserError, match=r"max_new_tokens: 256 leaves no room for a prompt in the policy's context of 256"
    ):
        measure(load_policy(tiny_policy_folder), PAIRS, None, wide)
