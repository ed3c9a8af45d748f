import pytest

from amopo_core.chat import ChatEncoder
from amopo_core.config import Dimension, Views
from amopo_core.data.tables import Pair
from amopo_core.encoding import DroppedPair, PairEncoder
from amopo_core.policy import load_policy

DIMENSIONS = {"h": Dimension(description="helps", weight=1), "correctness": Dimension(description="right", weight=1)}


@pytest.fixture(scope="module")
def chat(tiny_policy_folder):
    return ChatEncoder(load_policy(tiny_policy_folder).tokenizer)


def pair(prompt="Q" * 50, chosen="yes", rejected="no", scores=(5.0, 1.0)):
    chosen_scores, rejected_scores = ({"h": score, "correctness": score} for score in scores)
    return Pair("id", "q", [{"role": "user", "content": prompt}], chosen, rejected, chosen_scores, rejected_scores)


def encode(chat, row, max_length=200, generic=True, pair_order="overall"):
    [encoded] = PairEncoder(chat, DIMENSIONS, Views(generic=generic, pair_order=pair_order), max_length).encode([row])
    return encoded


def text(chat, ids):
    return chat.tokenizer.decode(ids)


def test_every_view_has_its_instruction_and_the_same_text(chat):
    encoded = encode(chat, pair(prompt="Why?"))

    assert [text(chat, ids) for ids in encoded.prompts] == [
        "Aim for high scores in h, correctness.\n\nWhy?\n",
        "Aim for h 5 of 5: helps.\n\nWhy?\n",
        "Aim for correctness 5 of 5: right.\n\nWhy?\n",
    ]
    assert text(chat, encoded.plain_prompt) == "Why?\n"
    assert text(chat, encoded.chosen) == "yes<|end|>"


@pytest.mark.parametrize("max_length", [60, 70, 90])
def test_a_long_prompt_is_shortened_alike_in_every_view_and_fits(chat, max_length):
    row = pair(prompt="".join(chr(48 + i) for i in range(70)))
    encoded = encode(chat, row, max_length)
    endings = {text(chat, ids).split("\n\n")[1] for ids in encoded.prompts}

    assert len(endings) == 1
    assert row.prompt[0]["content"].endswith(endings.pop().strip("\n"))
    assert max(map(len, encoded.prompts)) + len(encoded.chosen) == max_length
    assert encoded.truncated > 0


def test_what_cannot_fit_is_dropped(chat):
    assert encode(chat, pair(chosen="y" * 200)) == DroppedPair("id", "too_long")


def test_empty_responses_are_dropped(chat):
    assert encode(chat, pair(rejected="")) == DroppedPair("id", "empty_response")


def test_a_pair_that_ties_everywhere_has_no_active_view(chat):
    tied = pair(scores=(3.0, 3.0))

    assert encode(chat, tied, generic=False, pair_order="per_dimension") == DroppedPair("id", "no_active_view")
    assert encode(chat, tied, generic=True, pair_order="per_dimension").prompts[1:] == (None, None)
