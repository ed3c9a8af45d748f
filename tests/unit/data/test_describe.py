import re

import pytest
from ruamel.yaml import YAML

from amopo_core.config import Dimension, Source
from amopo_core.data.describe import describe


def declared(suggestion):
    """The suggestion as its reader would copy it, with the scales and descriptions filled in."""
    text = suggestion.replace("LOWEST, HIGHEST", "0, 10").replace('description: ""', "description: good")
    return YAML(typ="safe").load(text)


RESPONSES = [
    {"question": "a", "answer": "b", "scores": {"help": 1, "true": "2.5"}, "overall": 3, "rater": 4},
    {"question": "c", "answer": "d", "scores": {"help": 6, "true": ""}, "overall": None, "rater": 5},
]


def test_fields_with_what_was_seen():
    assert [str(field) for field in describe(RESPONSES, "web").fields] == [
        "question: text",
        "answer: text",
        "scores.help: number, 1 to 6",
        "scores.true: null or number as text, 2.5 to 2.5",
        "overall: null or number, 3 to 3",
        "rater: number, 4 to 5",
    ]


def test_responses_are_suggested_as_a_source_that_loads():
    suggestion = describe(RESPONSES, "web").suggestion
    copied = declared(suggestion)
    source = Source.model_validate(copied["sources"]["web"])

    assert (source.rows, source.prompt, source.response, source.rater) == ("responses", "question", "answer", "rater")
    assert {name: score.field for name, score in source.scores.items()} == {
        "help": "scores.help",
        "true": "scores.true",
    }
    assert source.overall is not None and source.overall.field == "overall"
    assert [Dimension.model_validate(dimension).weight for dimension in copied["dimensions"].values()] == [1.0, 1.0]
    assert "seen 1 to 6; declare the scale" in suggestion


def test_pairs_are_recognised_and_both_sides_are_seen():
    row = {"prompt": "p", "chosen": {"response": "a", "help": "5"}, "rejected": {"response": "b", "help": "2"}}

    suggestion = describe([row], "lab").suggestion
    source = Source.model_validate(declared(suggestion)["sources"]["lab"])

    assert (source.rows, source.prompt, source.response) == ("pairs", "prompt", "response")
    assert source.scores["help"].field == "help"
    assert "seen 2 to 5" in suggestion


def test_what_cannot_be_told_is_left_to_the_user():
    suggestion = describe([{"x": "text", "y": True, "Überall gut": 1}], "web").suggestion

    assert "prompt: FIELD" in suggestion and "response: FIELD" in suggestion
    assert 'field: "Überall gut"' in suggestion
    assert re.search(r"scale: \[LOWEST, HIGHEST\]", suggestion)
    assert list(declared(suggestion)["dimensions"]) == ["berall_gut"]


def test_a_lone_overall_is_a_dimension():
    assert list(declared(describe([{"prompt": "p", "overall": 3}], "web").suggestion)["dimensions"]) == ["overall"]


@pytest.mark.parametrize(("values", "seen"), [([1, "NaN", 3], "1 to 3"), ([10**400, 2], "2 to 2"), ([1, [2]], None)])
def test_only_numbers_have_a_range(values, seen):
    [field] = describe([{"a": value} for value in values], "web").fields

    assert (f", {seen}" in str(field)) if seen else not field.is_number
