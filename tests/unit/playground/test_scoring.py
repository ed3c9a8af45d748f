from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amopo_core.playground.domain import Domain, Note, Question
from amopo_core.playground.responses import Quality, draw_quality, write_response
from amopo_core.playground.scoring import score_response

BEST = Quality("right", "true", "useful", "kept")
NOTES = (Note("Mira", "sings", "daily"), Note("Hugo", "paints", "weekly"), Note("Dora", "swims", "nightly"))
QUESTION = Question(NOTES, "Hugo", "activity", "stars")


@pytest.mark.parametrize(
    ("response", "helpfulness", "correctness", "instruction_following"),
    [
        ("* Hugo paints weekly. Ask about Dora too. *", 5, 5, 5),
        ("* Hugo paints weekly. Ask about Hugo too. *", 4, 5, 5),  # an idle offer
        ("* Hugo paints weekly. Ask about Otto too. *", 3, 5, 5),  # nobody of the notes
        ("* Hugo paints anyway. Ask about Dora too. *", 3, 5, 5),  # no other fact
        ("* Hugo paints nightly. Ask about Dora too. *", 3, 4, 5),  # a false one
        ("* Hugo paints weekly or nightly. Have a nice day. *", 1, 4, 5),  # a false one beside the true one
        ("* Hugo paints or swims weekly. Have a nice day. *", 3, 3, 5),  # hedged
        ("* Hugo swims weekly. Have a nice day. *", 3, 2, 5),  # Dora's
        ("* Hugo swims nightly. Have a nice day. *", 1, 1, 5),  # Dora's, both
        ("* Hugo knits weekly. Have a nice day. *", 3, 1, 5),  # nobody's
        ("* Dora paints weekly. Have a nice day. *", 3, 2, 5),  # said of somebody else
        ("Hugo paints weekly.", 3, 5, 1),
        ("* Hugo paints weekly.", 3, 5, 3),
        ("Hugo paints weekly. *", 3, 5, 3),
        ("# Hugo paints weekly. #", 3, 5, 2),  # another format
        ("* Hugo paints weekly. #", 3, 5, 2),  # begun as asked, ended otherwise
        ("* Hugo * paints weekly. *", 3, 5, 4),  # a mark too many
        ("*", 1, 1, 1),
        ("", 1, 1, 1),
    ],
)
def test_scores_by_hand(response: str, helpfulness: int, correctness: int, instruction_following: int):
    assert score_response(QUESTION, response) == {
        "helpfulness": helpfulness,
        "correctness": correctness,
        "instruction_following": instruction_following,
    }


def test_the_other_attribute_asked_for():
    question = Question(NOTES, "Hugo", "time", "stars")

    assert score_response(question, "* Hugo paints daily. *")["correctness"] == 2
    assert score_response(question, "* Hugo swims weekly. *") == {
        "helpfulness": 1,
        "correctness": 4,
        "instruction_following": 5,
    }


@given(
    st.text()
    | st.lists(
        st.sampled_from(["*", "#", "Hugo", "Dora", "paints", "swims", "weekly", "Ask", "about", "too", ".", "or"])
    ).map(" ".join)
)
def test_any_text_has_scores_of_the_scale(response: str):
    scores = score_response(QUESTION, response)

    assert all(1 <= score <= 5 for score in scores.values())


@given(st.integers(0, 2**31 - 1), st.booleans())
def test_the_best_response_is_the_best(seed: int, held: bool):
    rng = Random(seed)
    question = Domain(seed).question(rng, held_out=held)
    best = score_response(question, write_response(question, BEST, rng))
    any_other = score_response(question, write_response(question, draw_quality(rng), rng))

    assert set(best.values()) == {5.0}
    assert all(any_other[name] <= best[name] for name in best)
