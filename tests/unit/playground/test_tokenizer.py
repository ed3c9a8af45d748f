import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError

from amopo_core.playground.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer(["Mira sings daily. Hugo paints weekly."] * 10, vocabulary=300, context=64)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(text: str):
    ids = TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    assert TOKENIZER.decode(ids) == text


def test_words_of_the_texts_are_one_token():
    assert TOKENIZER.tokenize(" Hugo paints") == ["ĠHugo", "Ġpaints"]


def test_end_is_not_padding_and_both_are_known():
    assert TOKENIZER.eos_token_id != TOKENIZER.pad_token_id
    assert TOKENIZER.convert_ids_to_tokens([TOKENIZER.eos_token_id, TOKENIZER.pad_token_id]) == ["<|end|>", "<|pad|>"]
    assert TOKENIZER.model_max_length == 64


def test_chat_template():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
    ]

    assert TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "<|system|>Be brief.<|end|><|user|>Hello<|end|><|assistant|>"
    )


def test_an_unknown_role_is_refused():
    with pytest.raises(TemplateError, match="roles are system, user, assistant"):
        TOKENIZER.apply_chat_template([{"role": "critic", "content": "No."}], tokenize=False)
