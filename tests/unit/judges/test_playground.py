from pathlib import Path

import pytest

from amopo_core.errors import UserError
from amopo_core.evaluation.judge import load_judge
from amopo_core.judges.playground import JUDGE
from amopo_core.params_file import read_params
from amopo_core.playground.domain import read_question

PLAYGROUND = read_params(Path(__file__).parents[2] / "params.yaml").playground
PROMPT = [
    {
        "role": "user",
        "content": "Notes: Mira sings daily. Hugo paints weekly. Dora swims nightly.\n"
        "Question: Please tell me when Dora acts. Put it inside pluses.",
    }
]


def test_scores_come_from_the_prompt_alone():
    assert JUDGE.score(PROMPT, "+ Dora swims nightly. Ask about Mira too. +") == {
        "helpfulness": 5,
        "correctness": 5,
        "instruction_following": 5,
    }
    assert JUDGE.score(PROMPT, "+ Dora acts daily. +") == {
        "helpfulness": 1,
        "correctness": 2,
        "instruction_following": 5,
    }


def test_the_last_turn_is_the_question():
    earlier = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day."}]

    assert JUDGE.score([*earlier, *PROMPT], "Dora swims nightly.") == JUDGE.score(PROMPT, "Dora swims nightly.")


def test_a_prompt_of_another_world_is_refused():
    with pytest.raises(UserError, match="reads its own prompts only, not 'What is the capital of France"):
        JUDGE.score([{"role": "user", "content": "What is the capital of France?"}], "Paris")


def test_prompts_differ_can_be_read_and_come_from_the_seed():
    prompts = JUDGE.prompts(PLAYGROUND, 10_000)
    texts = [prompt[0]["content"] for prompt in prompts]

    assert len(set(texts)) == PLAYGROUND.held_out_prompts
    assert all(map(read_question, texts))
    assert JUDGE.prompts(PLAYGROUND, 10) == prompts[:10]
    assert JUDGE.prompts(PLAYGROUND.model_copy(update={"seed": PLAYGROUND.seed + 1}), 10) != prompts[:10]


def test_both_judges_load_as_files():
    assert load_judge(Path("amopo_core/judges/none.py")) is None
    judge = load_judge(Path("amopo_core/judges/playground.py"))
    assert judge is not None
    assert judge.score(PROMPT, "Hugo") == JUDGE.score(PROMPT, "Hugo")
