from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers

from amopo_core.chat import ChatEncoder
from amopo_core.config import Dimension, Views
from amopo_core.data.tables import Pair
from amopo_core.engine.batches import sequences_of
from amopo_core.engine.tree import packed_tokens
from amopo_core.policy import load_policy
from amopo_core.training.encoding import REASONS, DroppedPair, PairEncoder
from amopo_core.views import views_of

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


messages = st.lists(
    st.builds(dict, role=st.sampled_from(["user", "assistant"]), content=st.text(min_size=1, max_size=60)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40)
@given(system=st.text(max_size=9), turns=messages, scores=st.tuples(*[st.sampled_from([1.0, 3.0, 5.0])] * 2))
def test_at_the_end_the_views_share_everything_before_the_instruction(chat, system, turns, scores):
    row = replace(pair(scores=scores), prompt=[{"role": "system", "content": system}, *turns])
    behind = ChatEncoder(chat.tokenizer, "end")
    spoken = [view.instruction for view in views_of(row, DIMENSIONS, Views(generic=True, pair_order="overall"))]

    first, last = encode(chat, row, max_length=500), encode(behind, row, max_length=500)

    shared = last.plain_prompt[:-1]  # the template ends with a line break
    for instruction, at_start, at_end in zip(spoken, first.prompts, last.prompts, strict=True):
        added = chat.tokenizer("\n\n" + instruction.strip())["input_ids"]
        assert at_end == [*shared, *added, last.plain_prompt[-1]]
        assert sorted(at_start) == sorted(at_end)
    assert last.plain_prompt == first.plain_prompt


def test_at_the_end_the_prompt_is_computed_once(chat):
    """At the start each of three views has its own 50 letters, 2 line breaks and the 8 letters of 'Aim for '."""
    at_start, at_end = encode(chat, pair()), encode(ChatEncoder(chat.tokenizer, "end"), pair())

    assert computed_tokens(at_start) - computed_tokens(at_end) == 2 * (50 + 2 + 8)


def computed_tokens(encoded):
    return packed_tokens(sequences_of(encoded, plain=False))


@pytest.mark.parametrize(("max_length", "stays"), [(45, "9?"), (53, "123456789?"), (55, "0123456789?")])
def test_at_the_end_the_views_have_the_same_text_also_where_a_token_spans_it_and_the_blank_line(
    tiny_policy_folder, max_length, stays
):
    """44 tokens: the longest instruction's 38, '?' with the blank line, the template's line break, a response's 4."""
    tokenizer = load_policy(tiny_policy_folder).tokenizer
    merges = [("Ċ", "Ċ"), ("?", "ĊĊ")]
    vocab = tokenizer.get_vocab() | {"ĊĊ": 258, "?ĊĊ": 259}
    tokenizer.backend_tokenizer.model = models.BPE(vocab=vocab, merges=merges)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    behind = ChatEncoder(tokenizer, "end")

    row = pair(prompt="0123456789?")
    encoded = encode(behind, row, max_length)

    assert {text(behind, ids).split("\n\n")[0] for ids in encoded.prompts} == {stays}
    assert stays.endswith(text(behind, encoded.plain_prompt).strip())
    assert max(map(len, encoded.prompts)) + len(encoded.chosen) == max_length - (stays == row.prompt[0]["content"])


@pytest.mark.parametrize("max_length", [60, 70, 90])
def test_at_the_end_too_a_long_prompt_is_shortened_alike_and_fits(chat, max_length):
    row = pair(prompt="".join(chr(48 + i) for i in range(70)))
    encoded = encode(ChatEncoder(chat.tokenizer, "end"), row, max_length)
    beginnings = {text(chat, ids).split("\n\n")[0] for ids in encoded.prompts}

    assert len(beginnings) == 1
    assert row.prompt[0]["content"].endswith(beginnings.pop())
    assert max(map(len, encoded.prompts)) + len(encoded.chosen) == max_length
    assert encoded.truncated == encode(chat, row, max_length).truncated > 0


@pytest.mark.parametrize("max_length", [60, 70, 90])
def test_a_long_prompt_is_shortened_alike_in_every_view_and_fits(chat, max_length):
    row = pair(prompt="".join(chr(48 + i) for i in range(70)))
    encoded = encode(chat, row, max_length)
    endings = {text(chat, ids).split("\n\n")[1] for ids in encoded.prompts}

    assert len(endings) == 1
    assert row.prompt[0]["content"].endswith(endings.pop().strip("\n"))
    assert max(map(len, encoded.prompts)) + len(encoded.chosen) == max_length
    assert encoded.truncated > 0


@pytest.mark.parametrize(
    ("max_length", "reason"),
    [
        (1, "response_too_long"),
        (11, "response_too_long"),  # the response's 10 tokens and its end alone
        (12, "too_long"),  # … and one for the prompt
        (51, "too_long"),
        (52, "prompt_lost"),  # the longest instruction's 40, the template's line break and the response's 11
        (53, None),  # … and the last letter of the question
    ],
)
def test_what_cannot_fit_is_dropped_with_its_reason(chat, max_length, reason):
    """The longest instruction is the generic view's, 'Aim for high scores in h, correctness.' and two line breaks."""
    encoded = encode(chat, pair(prompt="Why?", rejected="y" * 10), max_length)

    if reason:
        assert encoded == DroppedPair("id", reason, needs=53)
    else:
        assert text(chat, encoded.prompts[0]) == "Aim for high scores in h, correctness.\n\n?\n"


def test_equal_responses_are_dropped_also_where_only_the_tokens_are_equal(chat, monkeypatch):
    assert encode(chat, pair(chosen="same", rejected="same")) == DroppedPair("id", "equal_responses")

    monkeypatch.setattr(chat.tokenizer.backend_tokenizer, "normalizer", normalizers.Lowercase())
    assert encode(chat, pair(chosen="Same", rejected="same")) == DroppedPair("id", "equal_responses")


def test_responses_that_differ_at_the_very_end_stay_whole_beside_a_shortened_prompt(chat):
    encoded = encode(chat, pair(prompt="Q" * 500, chosen="y" * 60 + "a", rejected="y" * 60 + "b"))

    assert encoded.truncated > 0
    assert (text(chat, encoded.chosen), text(chat, encoded.rejected)) == ("y" * 60 + "a<|end|>", "y" * 60 + "b<|end|>")


def test_every_reason_is_given_and_has_a_remedy(chat):
    dropped = {
        "no_active_view": encode(chat, pair(scores=(3.0, 3.0)), generic=False, pair_order="per_dimension"),
        "empty_response": encode(chat, pair(rejected="")),
        "equal_responses": encode(chat, pair(chosen="a", rejected="a")),
        "response_too_long": encode(chat, pair(chosen="y" * 200)),
        "too_long": encode(chat, pair(chosen="y" * 180)),
        "prompt_lost": encode(chat, pair(chosen="y" * 158)),
    }

    # the generic instruction, the line break of the template, the response with its end, a letter of the question
    needs = {"response_too_long": 40 + 1 + 201 + 1, "too_long": 40 + 1 + 181 + 1, "prompt_lost": 40 + 1 + 159 + 1}
    assert dropped == {reason: DroppedPair("id", reason, needs.get(reason, 0)) for reason in REASONS}


def test_the_weight_of_a_pair_goes_with_it(chat):
    assert encode(chat, replace(pair(), weight=0.25)).weight == 0.25


def test_empty_responses_are_dropped(chat):
    assert encode(chat, pair(rejected="")) == DroppedPair("id", "empty_response")


def test_a_pair_that_ties_everywhere_has_no_active_view(chat):
    tied = pair(scores=(3.0, 3.0))

    assert encode(chat, tied, generic=False, pair_order="per_dimension") == DroppedPair("id", "no_active_view")
    assert encode(chat, tied, generic=True, pair_order="per_dimension").prompts[1:] == (None, None)
