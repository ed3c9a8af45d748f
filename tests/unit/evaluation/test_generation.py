from dataclasses import replace

import pytest
import torch

from amopo_core.evaluation.generation import draw_tokens, generate
from amopo_core.policy import load_policy

PROMPTS = [[65, 66, 67], [70], [80, 81, 82, 83, 84, 85, 86], [90, 91], [65, 66, 68]]
KEYS = list("abcde")


@pytest.fixture(scope="module")
def policy(tiny_policy_folder):
    return load_policy(tiny_policy_folder)


def sample(policy, prompts=PROMPTS, keys=KEYS, **settings):
    return generate(
        policy, prompts, keys, **{"max_new_tokens": 12, "temperature": 1.0, "batch_size": 2, "seed": 0} | settings
    )


def test_a_generation_does_not_depend_on_its_batch(policy):
    together = sample(policy, batch_size=5)
    alone = [sample(policy, [prompt], [key])[0] for prompt, key in zip(PROMPTS, KEYS, strict=True)]
    reversed_order = sample(policy, PROMPTS[::-1], KEYS[::-1], batch_size=3)[::-1]

    assert together == alone == reversed_order


def test_draws_depend_on_seed_and_key_alone(policy):
    assert sample(policy) == sample(policy)
    same_prompt = sample(policy, [PROMPTS[0]] * 2, ["a", "b"])
    assert same_prompt[0].token_ids != same_prompt[1].token_ids
    assert sample(policy, seed=1) != sample(policy, seed=0)


def test_greedy_takes_the_likeliest_token_each_time(policy):
    """Against the plain way: the whole sequence run anew for every token, without padding and without a cache."""
    for prompt, generation in zip(PROMPTS, sample(policy, temperature=0.0), strict=True):
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(12):
                ids.append(int(policy.model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert generation.token_ids == ids[len(prompt) :]
        assert generation.response == policy.tokenizer.decode(generation.token_ids)
        assert not generation.ended


def test_a_response_stops_at_the_end_token(policy, tiny_policy_folder):
    """The third token of the greedy response is declared the end token: two tokens are left, and it has ended."""
    [whole] = sample(policy, PROMPTS[:1], KEYS[:1], temperature=0.0)
    assert whole.token_ids[2] not in whole.token_ids[:2]
    stopping = replace(policy, tokenizer=load_policy(tiny_policy_folder).tokenizer)
    stopping.tokenizer.eos_token = stopping.tokenizer.convert_ids_to_tokens(whole.token_ids[2])

    [stopped, *_] = sample(stopping, temperature=0.0, batch_size=5)

    assert stopped.token_ids == whole.token_ids[:2]
    assert stopped.ended


def test_tokens_are_drawn_with_their_probabilities():
    """softmax([0, log 2, log 5] / 1) = 1/8, 2/8, 5/8; at temperature 1/2 the squares: 1/30, 4/30, 25/30."""
    logits = torch.tensor([0.0, 2.0, 5.0]).clamp(min=1).log().expand(6000, 3)
    for temperature, expected in ((1.0, [1 / 8, 2 / 8, 5 / 8]), (0.5, [1 / 30, 4 / 30, 25 / 30])):
        generators = [torch.Generator().manual_seed(seed) for seed in range(6000)]
        shares = draw_tokens(logits, temperature, generators).bincount(minlength=3) / 6000
        assert shares.tolist() == pytest.approx(expected, abs=0.02)


def test_policies_that_nearly_agree_draw_the_same_tokens():
    generators = lambda: [torch.Generator().manual_seed(seed) for seed in range(500)]  # noqa: E731
    logits = torch.randn(500, 50, generator=torch.Generator().manual_seed(0))
    other = logits + 0.01 * torch.randn(500, 50, generator=torch.Generator().manual_seed(1))

    agreed = (draw_tokens(logits, 1.0, generators()) == draw_tokens(other, 1.0, generators())).float().mean()
    assert agreed > 0.97
