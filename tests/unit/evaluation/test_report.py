import json

import pytest

from amopo_core.evaluation.comparison import available_metrics, compare
from amopo_core.evaluation.health import Health, health
from amopo_core.evaluation.markdown import cell, table
from amopo_core.evaluation.measurement import Answer, Measurement, RankedPair
from amopo_core.evaluation.model_card import model_card
from amopo_core.evaluation.report import comparison_numbers, markdown_report, policy_numbers

TRICKY = "<|end|> | **bold** <b>x</b>\nnext `line`"


def measured(score: float | None, lead: float, response: str = "Yes.") -> Measurement:
    """Two pairs and two answers; correctness ties in every pair."""
    scores = None if score is None else {"helpfulness": score, "correctness": 2.0}
    prompt = [{"role": "user", "content": TRICKY}]
    answers = [Answer(f"q{place}", prompt, response, 4 + 2 * place, place == 0, 0.5, scores) for place in (0, 1)]
    gaps = {"helpfulness": 1.0, "correctness": 0.0}
    return Measurement([RankedPair("a", "qa", lead, 0.0, gaps, 3), RankedPair("b", "qb", None, None, gaps, 0)], answers)


def reported(params, base: Measurement, candidate: Measurement):
    comparisons = [compare(base, candidate, params, metric) for metric in available_metrics(candidate)]
    text = markdown_report(base, candidate, comparisons, params.evaluation.confidence, "picture.png")
    return comparison_numbers(base, candidate, comparisons), text


def test_health_by_hand():
    """Lengths 4 and 6, half of each repeated, one of two ended."""
    assert health(measured(1.0, 0.0).answers) == Health(tokens=5.0, repetition=0.5, ended=0.5)


def test_numbers_of_a_judged_comparison(params):
    numbers, _ = reported(params, measured(2.0, -1.0), measured(3.5, 0.25))

    assert numbers["judge/helpfulness/base"] == 2.0
    assert numbers["judge/helpfulness/candidate"] == 3.5
    assert numbers["judge/helpfulness/difference"] == numbers["judge/helpfulness/low"] == 1.5
    assert numbers["judge/all_dimensions/difference"] == 0.75
    assert (numbers["accuracy/helpfulness/base"], numbers["accuracy/helpfulness/candidate"]) == (0.0, 1.0)
    assert numbers["margin/helpfulness/difference"] == 1.25
    assert (numbers["prompts"], numbers["pairs"], numbers["pairs_unreadable"], numbers["pairs_truncated"]) == (
        2,
        2,
        1,
        1,
    )
    assert (numbers["tokens/base"], numbers["ended/candidate"]) == (5.0, 0.5)
    assert all(isinstance(value, int | float) for value in json.loads(json.dumps(numbers)).values())


def test_what_was_not_measured_has_no_number(params):
    numbers, text = reported(params, measured(None, -1.0), measured(None, 0.25))

    assert not [key for key in numbers if "correctness" in key or "all_dimensions" in key or "judge" in key]
    assert "| correctness | not measured | not measured |  |  |" in text
    assert "No judge: ranking only." in text


def test_numbers_of_one_policy(params):
    numbers = policy_numbers(measured(2.0, -1.0), params)

    assert numbers["judge/helpfulness"] == 2.0
    assert numbers["accuracy/helpfulness"] == 0.0
    assert numbers["margin/helpfulness"] == -1.0
    assert "accuracy/correctness" not in numbers


def test_the_report_shows_both_sides(params):
    _, text = reported(params, measured(2.0, -1.0, "Before."), measured(3.5, 0.25, "After."))

    assert "2.00 before, 2.75 after; difference **+0.75**" in text
    assert "| helpfulness | 2.000 | 3.500 | +1.500 | +1.500 to +1.500 |" in text
    assert "| ended by themselves [share] | 0.500 | 0.500 |" in text
    assert "Before." in text
    assert "After." in text
    assert "](picture.png)" in text
    assert "Of 2 test pairs, 1 were read with a shortened prompt and 1 did not fit" in text
    assert "judge: ranking" not in text


def test_peoples_text_is_never_markup(params):
    _, text = reported(params, measured(2.0, -1.0, TRICKY), measured(3.5, 0.25, TRICKY))

    assert "<b>" not in text
    assert "<|end|>" not in text
    assert "**bold**" not in text
    rows = [line for line in text.splitlines() if "&#60;" in line]
    assert rows
    assert all(line.count("|") == 3 for line in rows)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a|b", "a&#124;b"), ("a\nb", "a<br>b"), ("<i>", "&#60;i&#62;"), ("plain, text.", "plain, text."), ("", "")],
)
def test_cells(text, shown):
    assert cell(text) == shown


def test_a_long_text_is_cut():
    assert cell("x" * 1000) == "x" * 600 + " …"


def test_a_table_aligns_numbers_to_the_right():
    assert table(["", "a", "b"], [["x", "1", "2"]]) == "|  | a | b |\n| --- | ---: | ---: |\n| x | 1 | 2 |"


@pytest.mark.parametrize(
    ("prompt_view", "instruction_at", "said"),
    [
        ("plain", "start", "nothing added to it"),
        (
            "helpfulness@5",
            "start",
            "first turn's text stands exactly\n\n```text\nAim for helpfulness 5 of 5: helps.\n\n\n```",
        ),
        (
            "helpfulness@5",
            "end",
            "last turn's text stands exactly\n\n```text\n\n\nAim for helpfulness 5 of 5: helps.\n```",
        ),
    ],
)
def test_the_card_gives_the_exact_prompt_form(params, prompt_view, instruction_at, said):
    asked = params.model_copy(
        update={
            "evaluation": params.evaluation.model_copy(update={"prompt_view": prompt_view}),
            "views": params.views.model_copy(update={"instruction_at": instruction_at}),
        }
    )
    comparison = compare(measured(2.0, -1.0), measured(3.5, 0.25), asked)
    card = model_card(asked, comparison, baseline="base", data_digest="0123abcd", chat_template="{{ x }} ``` y")

    assert said in card
    assert "`0123abcd`" in card
    assert "````text\n{{ x }} ``` y\n````" in card
    assert "| helpfulness | 2.000 | 3.500 | +1.500 |" in card
    assert "ranking only" not in card
