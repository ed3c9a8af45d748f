import json

import pytest

from amopo_core.data.tables import text_id
from amopo_core.errors import UserError
from amopo_core.evaluation.bootstrap import Interval
from amopo_core.evaluation.guardrails import Guardrails, guardrail_numbers, read_guardrails
from amopo_core.evaluation.measurement import Answer
from amopo_core.evaluation.regression import (
    REFERENCE,
    Regression,
    RegressionResult,
    compare_regression,
    read_regression,
)


def write(path, *lines: str):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_prompts_are_words_or_conversations(tmp_path):
    turns = [{"role": "user", "content": "One\u2028two?"}, {"role": "assistant", "content": "Yes"}]
    file = write(
        tmp_path / "set.jsonl",
        "# mine",
        json.dumps({"prompt": "Why?", "response": "So."}),
        "",
        json.dumps({"prompt": [*turns, {"role": "user", "content": "And?"}], "response": "No."}, ensure_ascii=False),
    )
    found = read_regression(file, judged=False)

    assert [row.messages[0]["content"] for row in found.values()] == ["Why?", "One\u2028two?"]
    assert next(iter(found)) == text_id([{"role": "user", "content": "Why?"}])
    assert [row.response for row in found.values()] == ["So.", "No."]


def test_a_set_of_nothing_but_remarks_is_empty(tmp_path):
    assert read_regression(write(tmp_path / "set.jsonl", "# nothing yet"), judged=True) == {}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ('"Why?"', "expected {"),
        ('{"prompt": ""}', "prompt"),
        ('{"prompt": []}', "prompt"),
        ('{"prompt": [{"role": "user"}]}', "content"),
        ('{"prompt": "Who?", "answer": "I"}', "answer"),
        ('{"prompt": "Who?", "response": 3}', "response"),
        ('{"prompt": "Who?"}', 'has no "response"'),
        ('{"prompt": "Why?", "response": "x"}', "in the file already"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path, line, said):
    file = write(tmp_path / "set.jsonl", '{"prompt": "Why?", "response": "So."}', line)

    with pytest.raises(UserError, match=r"set\.jsonl:2: ") as raised:
        read_regression(file, judged=False)
    assert said in str(raised.value)
    assert len(str(raised.value)) < 500


def test_with_a_judge_no_response_is_needed(tmp_path):
    assert len(read_regression(write(tmp_path / "set.jsonl", '{"prompt": "Who?"}'), judged=True)) == 1


def test_a_set_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"promotion\.regression names a file"):
        read_regression(tmp_path / "set.jsonl", judged=True)


def answer(prompt_id: str, **scores: float) -> Answer:
    return Answer(prompt_id, [], "text", tokens=1, ended=True, repetition=0.0, scores=scores or None)


def test_judged_answers_differ_by_dimension(params):
    before = RegressionResult(
        [answer("a", helpfulness=3, correctness=4), answer("b", helpfulness=3, correctness=4)], None
    )
    after = RegressionResult(
        [answer("a", helpfulness=4, correctness=4), answer("b", helpfulness=4, correctness=2)], None
    )
    found = compare_regression(before, after, ["a", "b"], params)

    assert found.prompts == 2
    assert found.differences["helpfulness"] == Interval(1.0, 1.0, 1.0)
    assert found.differences["correctness"] == Interval(-1.0, -2.0, 0.0)


def test_reference_responses_differ_in_their_log_probabilities(params):
    before = RegressionResult([answer("a"), answer("b")], [-2.0, -1.0])
    after = RegressionResult([answer("a"), answer("b")], [-1.5, -1.5])
    found = compare_regression(before, after, ["a", "b"], params)

    assert found.unit == "nats per token"
    assert found.differences == {REFERENCE: Interval(0.0, -0.5, 0.5)}


@pytest.mark.parametrize(
    "found",
    [
        Guardrails("base", {"base": 0.25}, {"champion": "there is no champion yet"}, None),
        Guardrails(
            "champion", {"base": 0.25, "champion": 0.5}, {}, Regression(3, "points", {"a_b": Interval(1, 0, 2)})
        ),
    ],
)
def test_a_report_is_read_as_it_was_written(tmp_path, found):
    write(tmp_path / "report.json", json.dumps(guardrail_numbers(found)))

    assert read_guardrails(tmp_path / "report.json") == found


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"incumbent": "base", "unmeasured": {}, "kl/base": null}'])
def test_a_file_that_is_no_report_is_an_error(tmp_path, text):
    with pytest.raises(UserError, match="no report of the guardrails"):
        read_guardrails(write(tmp_path / "report.json", text))
    with pytest.raises(UserError, match="run `dvc repro`"):
        read_guardrails(tmp_path / "nothing.json")
