"""What evaluation asks about occurs in no feedback and in nothing that the base policy read."""

import re
from pathlib import Path

import pytest

from amopo_core.judges.playground import JUDGE
from amopo_core.params_file import read_params
from amopo_core.playground.base import conversations
from amopo_core.playground.domain import ACTIVITIES, NAMES, TIMES
from amopo_core.playground.feedback import feedback_rows

PARAMS = read_params(Path(__file__).parents[2] / "params.yaml")


def facts(text: str) -> set[tuple[str, str]]:
    """Every person of a text with every activity and every time of it, stated together or not."""
    words = set(re.findall(r"\w+", text))
    return {(name, value) for name in words & {*NAMES} for value in words & {*ACTIVITIES, *TIMES}}


def phrases(prompt: str) -> set[str]:
    """The two parts of a prompt's wording: before `what` or `when`, and the request for a format."""
    asked, request, _ = prompt.partition("Question: ")[2].split(".")
    return {re.split(" (?:what|when) ", asked)[0], request.rpartition(" ")[0].strip()}


@pytest.mark.parametrize("seed", [100, 101, 102])
def test_no_fact_and_no_wording_of_a_held_out_prompt_is_seen_before(seed: int):
    playground = PARAMS.playground.model_copy(update={"seed": seed, "prompts": 300, "pretraining_conversations": 3000})
    seen = [f"{row['prompt']}\n{row['response']}" for row in feedback_rows(playground)]
    seen += ["\n".join(text) for text in conversations(playground)]
    held_out = [prompt[0]["content"] for prompt in JUDGE.prompts(playground, 300)]
    seen_facts = set().union(*map(facts, seen))
    held_out_facts = set().union(*map(facts, held_out))
    everything_seen = "\n".join(seen)

    assert held_out_facts.isdisjoint(seen_facts)
    assert len(held_out_facts) == len(NAMES) * (len(ACTIVITIES) + len(TIMES)) / 4
    assert not [phrase for phrase in set().union(*map(phrases, held_out)) if f"{phrase} " in everything_seen]
