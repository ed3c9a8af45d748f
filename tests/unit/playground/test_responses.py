from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amopo_core.playground.domain import Note, Question
from amopo_core.playground.responses import (
    EXTRAS,
    FORMATS,
    OFFERS,
    VALUES,
    Quality,
    draw_quality,
    recite,
    write_response,
)

BEST = Quality("right", "true", "useful", "kept")
NOTES = (Note("Mira", "sings", "daily"), Note("Hugo", "paints", "weekly"))
WHAT = Question(NOTES, "Hugo", "activity", "stars")
WHEN = Question(NOTES, "Hugo", "time", "hashes")


@pytest.mark.parametrize(
    ("question", "quality", "text"),
    [
        (WHAT, BEST, "* Hugo paints weekly. Ask about Mira too. *"),
        (WHEN, BEST, "# Hugo paints weekly. Ask about Mira too. #"),
        (WHAT, Quality("other", "false", "idle", "none"), "Hugo sings daily. Ask about Hugo too."),
        (WHAT, Quality("other", "none", "none", "opened"), "* Hugo sings anyway. Have a nice day."),
        (WHEN, Quality("right", "none", "none", "none"), "Hugo acts weekly. Have a nice day."),
        (WHEN, Quality("other", "true", "none", "none"), "Hugo paints daily. Have a nice day."),
    ],
)
def test_text_of_a_quality(question: Question, quality: Quality, text: str):
    assert write_response(question, quality, Random(0)) == text


def test_hedged_and_foreign_are_drawn():
    written = {write_response(WHAT, Quality("hedged", "true", "none", "foreign"), Random(seed)) for seed in range(100)}

    sentences = {text[2:-2] for text in written}
    assert sentences == {f"Hugo {both} weekly. Have a nice day." for both in ("paints or sings", "sings or paints")}
    assert {text[0] for text in written} == {"-", "#", "+"}


def test_parts_are_drawn_apart_with_their_shares():
    """4000 draws: a share's standard error is below 0.008, so 0.04 is five of them."""
    rng = Random(0)
    drawn = [draw_quality(rng) for _ in range(4000)]

    for part, shares in {"value": VALUES, "extra": EXTRAS, "offer": OFFERS, "format": FORMATS}.items():
        assert sum(shares.values()) == pytest.approx(1)
        found = [getattr(quality, part) for quality in drawn]
        assert {key: found.count(key) / len(drawn) for key in shares} == pytest.approx(shares, abs=0.04)
    both = sum(quality.value == "right" and quality.format == "kept" for quality in drawn) / len(drawn)
    assert both == pytest.approx(VALUES["right"] * FORMATS["kept"], abs=0.04)


@given(st.integers())
def test_reading_aloud_says_every_note_once(seed: int):
    assert sorted(recite(NOTES, Random(seed)).split(". ")) in (
        ["Hugo paints weekly.", "Mira sings daily"],
        ["Hugo paints weekly", "Mira sings daily."],
    )
