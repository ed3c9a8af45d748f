from dataclasses import replace

import pytest

from amopo_core.errors import UserError
from amopo_core.evaluation.measurement import Answer, Measurement, RankedPair, read_measurement, write_measurement

PAIR = RankedPair("p", "q", -1.0, -1.5, {"better": 2.0, "worse": -1.0, "tied": 0.0, "unrated": None}, truncated=0)
ANSWER = Answer("q", [{"role": "user", "content": "Why?"}], "Because.", 3, True, 0.25, {"better": 4.5})


@pytest.mark.parametrize(
    ("dimension", "margin"), [("better", 0.5), ("worse", -0.5), ("tied", None), ("unrated", None), ("unknown", None)]
)
def test_the_margin_follows_the_order_of_the_dimension(dimension, margin):
    """Chosen at -1.0, rejected at -1.5: +0.5 where the chosen one is better, -0.5 where the rejected one is."""
    assert PAIR.margin(dimension) == margin


def test_a_pair_that_was_not_read_has_no_margin():
    assert replace(PAIR, chosen_logp=None, rejected_logp=None).margin("better") is None


@pytest.mark.parametrize(
    "text", ["plain", 'quote " and \\ and |', "a\nb\r\nc", "line\u2028 and paragraph\u2029, next\x85", "žluťoučký 😀"]
)
def test_what_is_written_is_read_back(tmp_path, text):
    measurement = Measurement(
        [PAIR, replace(PAIR, chosen_logp=None)], [replace(ANSWER, response=text), replace(ANSWER, scores=None)]
    )
    write_measurement(tmp_path / "new" / "m.jsonl", measurement)

    assert read_measurement(tmp_path / "new" / "m.jsonl") == measurement
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["m.jsonl"]


def test_judged_where_answers_have_scores():
    assert Measurement([], [ANSWER]).judged
    assert not Measurement([PAIR], [replace(ANSWER, scores=None)]).judged


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"kind": "pair"}', '{"kind": "other"}', '{"kind": "answer", "x": 1}', ""]
)
def test_a_strange_line_is_named(tmp_path, line):
    path = tmp_path / "m.jsonl"
    write_measurement(path, Measurement([PAIR], []))
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")

    with pytest.raises(UserError, match=r"m\.jsonl:2: not a row of a measurement"):
        read_measurement(path)


def test_a_missing_measurement_says_what_makes_it(tmp_path):
    with pytest.raises(UserError, match="dvc repro"):
        read_measurement(tmp_path / "none.jsonl")
