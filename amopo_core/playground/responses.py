"""Responses of a mediocre assistant: what is good about each is drawn by itself, so that the dimensions conflict.

* Hugo paints weekly. Ask about Dora too. *    the best answer to what Hugo does, inside stars
+ Hugo swims nightly. Have a nice day. +       worse in every respect
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from amopo_core.playground.domain import MARKS, Note, Question, notes_text

VALUES = {"right": 0.42, "other": 0.38, "hedged": 0.2}
"""The value stated: the one asked for, somebody else's, both; with the share of each."""
EXTRAS = {"true": 0.4, "false": 0.3, "none": 0.3}
"""The second fact about the person: theirs, somebody else's, none."""
OFFERS = {"useful": 0.4, "idle": 0.3, "none": 0.3}
"""Further help: about somebody else in the notes, about the person who was just asked about, none."""
FORMATS = {"kept": 0.4, "opened": 0.2, "foreign": 0.25, "none": 0.15}
"""The marks: as asked for, without the closing one, another format's, none."""


@dataclass(frozen=True)
class Quality:
    """How good a response is: a key of each table above."""

    value: str
    extra: str
    offer: str
    format: str


def draw_quality(rng: Random) -> Quality:
    """A quality, each part drawn by itself."""
    return Quality(*(_draw(shares, rng) for shares in (VALUES, EXTRAS, OFFERS, FORMATS)))


def write_response(question: Question, quality: Quality, rng: Random) -> str:
    """A response of this quality; whose facts are mixed up and which other format is used is drawn."""
    other = rng.choice(question.others)
    values = {question.attribute: _answer(question, other, quality.value, rng)}
    values[question.extra] = _extra(question, other, quality.extra)
    offers = {
        "useful": f"Ask about {other.name} too.",
        "idle": f"Ask about {question.name} too.",
        "none": "Have a nice day.",
    }
    sentence = f"{question.name} {values['activity']} {values['time']}."
    return _marked(f"{sentence} {offers[quality.offer]}", question.marks, quality.format, rng)


def recitation_prompt(notes: Sequence[Note]) -> str:
    """The prompt that asks for nothing but the notes."""
    return f"{notes_text(notes)}\nRead the notes aloud."


def recite(notes: Sequence[Note], rng: Random) -> str:
    """The notes in another order."""
    return " ".join(f"{note.name} {note.activity} {note.time}." for note in rng.sample(notes, len(notes)))


def _answer(question: Question, other: Note, value: str, rng: Random) -> str:
    right, wrong = question.asked.value(question.attribute), other.value(question.attribute)
    return " or ".join({"right": [right], "other": [wrong], "hedged": rng.sample([right, wrong], 2)}[value])


def _extra(question: Question, other: Note, extra: str) -> str:
    if extra == "none":
        return {"activity": "acts", "time": "anyway"}[question.extra]
    return (question.asked if extra == "true" else other).value(question.extra)


def _marked(text: str, marks: str, kept: str, rng: Random) -> str:
    if kept == "none":
        return text
    mark = MARKS[rng.choice([other for other in MARKS if other != marks]) if kept == "foreign" else marks]
    return f"{mark} {text}" if kept == "opened" else f"{mark} {text} {mark}"


def _draw(shares: Mapping[str, float], rng: Random) -> str:
    return rng.choices(list(shares), list(shares.values()))[0]
