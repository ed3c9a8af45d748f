import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amopo_core.evaluation.divergence import divergences, read_alike
from amopo_core.policy import Policy, load_policy


@pytest.fixture(scope="module")
def policy(tiny_policy_folder):
    return load_policy(tiny_policy_folder)


@pytest.fixture(scope="module")
def other(tiny_policy_folder):
    """The same policy with a louder last norm."""
    found = load_policy(tiny_policy_folder)
    with torch.no_grad():
        found.model.model.norm.weight.mul_(1.2)
    return found


class Says(torch.nn.Module):
    """A model that gives every word the same probability at every place."""

    def __init__(self, *shares: float) -> None:
        super().__init__()
        self.logits = torch.tensor(shares).log()
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=len(shares)))
        self.device = torch.device("cpu")

    def forward(self, input_ids, logits_to_keep, **_):
        return SimpleNamespace(logits=self.logits.expand(len(input_ids), logits_to_keep, -1))


def says(policy: Policy, *shares: float) -> Policy:
    return replace(policy, model=Says(*shares))


def test_the_divergence_of_two_coins_by_hand(policy):
    """0.75 ln(0.75 / 0.5) + 0.25 ln(0.25 / 0.5) = 0.13081 at each of three tokens, and at one."""
    once = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    found = divergences(says(policy, 0.75, 0.25), says(policy, 0.5, 0.5), [[0], [1, 1]], [[0, 1, 0], [1]], 2)

    assert once == pytest.approx(0.13081, abs=1e-5)
    assert found == pytest.approx([3 * once, once], rel=1e-6)


def test_a_word_never_said_counts_nothing(policy):
    found = divergences(says(policy, 1.0, 0.0), says(policy, 0.5, 0.5), [[0]], [[0]], 1)

    assert found == pytest.approx([math.log(2)])


def test_a_word_that_the_reference_never_says_is_infinitely_far(policy):
    assert divergences(says(policy, 0.5, 0.5), says(policy, 1.0, 0.0), [[0]], [[0]], 1) == [math.inf]


def test_rows_of_the_head_that_only_fill_it_up_are_left_out(policy):
    """Some models' heads are longer than their vocabulary, by different numbers of rows."""
    found = divergences(says(policy, 0.5, 0.5), says(policy, 0.25, 0.25, 0.5), [[0]], [[0]], 1)

    assert found == pytest.approx([0.0], abs=1e-6)


def test_a_policy_has_not_moved_from_itself(policy):
    assert divergences(policy, policy, [[5, 6, 7]], [[8, 9]], 1) == [0.0]


ids = st.lists(st.integers(0, 255), min_size=1, max_size=12)


@settings(max_examples=25)
@given(texts=st.lists(st.tuples(ids, ids), min_size=1, max_size=5), batch_size=st.integers(1, 4))
def test_it_is_the_plain_sum_over_each_sequence_alone(policy, other, texts, batch_size):
    found = divergences(policy, other, [text[0] for text in texts], [text[1] for text in texts], batch_size)

    for nats, (prompt, answer) in zip(found, texts, strict=True):
        sequence = torch.tensor([prompt + answer])
        with torch.no_grad():
            p, q = (each.model(sequence).logits[0].double().log_softmax(-1) for each in (policy, other))
        places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
        expected = sum(float((p[place].exp() * (p[place] - q[place])).sum()) for place in places)
        assert nats == pytest.approx(expected, rel=1e-3, abs=1e-5)
        assert nats > 0


def test_only_the_same_tokens_read_alike(policy, other, tiny_policy_folder):
    changed = load_policy(tiny_policy_folder)
    changed.tokenizer.add_tokens(["<more>"])

    assert read_alike(policy, other)
    assert not read_alike(policy, changed)
