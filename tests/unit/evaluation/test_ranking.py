from dataclasses import replace

import pytest
import torch

from amopo_core.chat import ChatEncoder
from amopo_core.data.tables import Pair
from amopo_core.errors import UserError
from amopo_core.evaluation.measuring import reference_logps
from amopo_core.evaluation.ranking import rank
from amopo_core.policy import load_policy


def pair(number: int, chosen: str, rejected: str, prompt: str = "Why?") -> Pair:
    return Pair(
        pair_id=f"p{number}",
        prompt_id=f"q{number}",
        prompt=[{"role": "user", "content": prompt}],
        chosen=chosen,
        rejected=rejected,
        chosen_scores={"helpfulness": 4.0, "correctness": 2.5, "brevity": None},
        rejected_scores={"helpfulness": 1.0, "correctness": 3.0, "brevity": 2.0},
    )


@pytest.fixture(scope="module")
def policy(tiny_policy_folder):
    return load_policy(tiny_policy_folder)


def mean_logp(policy, prompt_text: str, response: str) -> float:
    """One sequence by itself: the mean over the response's tokens and the end token."""
    encoder = ChatEncoder(policy.tokenizer)
    prompt = encoder.prompt([{"role": "user", "content": prompt_text}], None, 256).ids
    ids = prompt + encoder.response(response)
    with torch.no_grad():
        logps = policy.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(logps[place - 1, ids[place]]) for place in range(len(prompt), len(ids))) / (len(ids) - len(prompt))


def test_log_probabilities_are_those_of_each_response_alone(policy):
    pairs = [pair(0, "So.", "Because of the moon"), pair(1, "x", "No idea"), pair(2, "A long one, really", "y")]

    for given, ranked in zip(
        pairs, rank(policy, ChatEncoder(policy.tokenizer), pairs, None, batch_size=4), strict=True
    ):
        assert (ranked.pair_id, ranked.prompt_id) == (given.pair_id, given.prompt_id)
        assert ranked.chosen_logp == pytest.approx(mean_logp(policy, "Why?", given.chosen), abs=1e-5)
        assert ranked.rejected_logp == pytest.approx(mean_logp(policy, "Why?", given.rejected), abs=1e-5)


def test_score_gaps_are_chosen_minus_rejected(policy):
    [ranked] = rank(policy, ChatEncoder(policy.tokenizer), [pair(0, "a", "b")], None, batch_size=2)

    assert ranked.score_gaps == {"helpfulness": 3.0, "correctness": -0.5, "brevity": None}


def test_a_preference_without_scores_is_a_gap_too(policy):
    compared = replace(pair(0, "a", "b"), preferences={"brevity": -1.0})
    [ranked] = rank(policy, ChatEncoder(policy.tokenizer), [compared], None, batch_size=2)

    assert ranked.score_gaps["brevity"] == -1.0
    assert ranked.margin("brevity") == pytest.approx(ranked.rejected_logp - ranked.chosen_logp)


def test_the_instruction_stands_where_the_encoder_puts_it(policy):
    [ranked] = rank(policy, ChatEncoder(policy.tokenizer), [pair(0, "a", "b")], "Be brief. ", batch_size=2)
    [behind] = rank(policy, ChatEncoder(policy.tokenizer, "end"), [pair(0, "a", "b")], "Be brief.\n\n", batch_size=2)

    assert ranked.chosen_logp == pytest.approx(mean_logp(policy, "Be brief. Why?", "a"), abs=1e-5)
    assert behind.chosen_logp == pytest.approx(mean_logp(policy, "Why?\n\nBe brief.", "a"), abs=1e-5)


def test_what_does_not_fit_the_context_is_shortened_or_left_unread(policy):
    """256 tokens of context, a token a byte: prompt 300 + line break, longer response 9 + end -> 55 left out."""
    long_prompt, long_response = pair(0, "123456789", "b", prompt="w" * 300), pair(1, "c" * 300, "d")
    shortened, unread = rank(policy, ChatEncoder(policy.tokenizer), [long_prompt, long_response], None, batch_size=2)

    assert shortened.truncated == 55
    assert shortened.chosen_logp is not None
    assert (unread.chosen_logp, unread.rejected_logp, unread.truncated) == (None, None, 0)


def test_the_batch_size_changes_nothing_but_the_last_bits(policy):
    pairs = [pair(number, "a" * (number + 1), "b" * (9 - number)) for number in range(8)]
    one, many = (
        rank(policy, ChatEncoder(policy.tokenizer), pairs, None, batch_size=1),
        rank(policy, ChatEncoder(policy.tokenizer), pairs, None, batch_size=64),
    )

    assert [ranked.chosen_logp for ranked in one] == pytest.approx([ranked.chosen_logp for ranked in many], abs=1e-5)


@pytest.fixture
def overflowing(tiny_policy_folder):
    """A policy that has no number for what comes after 200 tokens: the checks of the forward pass see shorter rows."""
    broken = load_policy(tiny_policy_folder)

    def overflow(_module, _inputs, output):
        output[:, 200:] = float("nan")
        return output

    handle = broken.model.model.norm.register_forward_hook(overflow)
    yield broken
    handle.remove()


def test_a_response_without_a_finite_log_probability_is_refused_by_name(overflowing):
    pairs = [pair(0, "So.", "No."), pair(1, "So.", "n" * 220)]

    with pytest.raises(UserError, match="gives the rejected response of test pair p1 the mean log-probability nan"):
        rank(overflowing, ChatEncoder(overflowing.tokenizer), pairs, None, batch_size=1)


def test_so_is_one_of_the_regression_set_with_its_file_and_row(overflowing, params):
    prompts = {name: [{"role": "user", "content": f"{name}?"}] for name in ("Who", "Why")}
    one_by_one = params.evaluation.model_copy(update={"batch_size": 1})

    with pytest.raises(UserError, match=r"the response to prompt 2 of .*regression.jsonl \('Why\?'\) the mean"):
        reference_logps(
            overflowing,
            prompts,
            ["Me.", "n" * 220],
            params.model_copy(update={"evaluation": one_by_one}),
            place=params.promotion.regression,
        )
