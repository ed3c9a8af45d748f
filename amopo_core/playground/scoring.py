"""The truth of the playground: what a response is worth in each dimension, decided by code for any text."""

from __future__ import annotations

import re

from amopo_core.playground.domain import ACTIVITIES, MARKS, NAMES, TIMES, Attribute, Question

_VALUES: dict[Attribute, tuple[str, ...]] = {"activity": ACTIVITIES, "time": TIMES}


def score_response(question: Question, response: str) -> dict[str, float]:
    """The score of each dimension, 1 to 5."""
    return {
        "helpfulness": _helpfulness(question, response),
        "correctness": _correctness(question, response),
        "instruction_following": _instruction_following(question, response),
    }


def _helpfulness(question: Question, response: str) -> float:
    """1, and 2 for the person's other fact; 2 for an offer about somebody else of the notes, 1 for an idle one."""
    extra = _stated(question.extra, response) == [question.asked.value(question.extra)]
    offered = re.findall(r"Ask about (\w+) too", response)[:1]
    useful = bool(offered) and offered[0] in [note.name for note in question.others]
    return 1.0 + 2.0 * extra + (2.0 if useful else float(offered == [question.name]))


def _correctness(question: Question, response: str) -> float:
    """5 for the value asked for, 3 among others, 2 for another of the notes, else 1; 1 less for a false other fact.

    At most 2 where it is said of somebody else first.
    """
    right = question.asked.value(question.attribute)
    stated = _stated(question.attribute, response)
    if right in stated and _subject(response) == question.name:
        score = 5.0 if stated == [right] else 3.0
    else:
        score = 2.0 if {note.value(question.attribute) for note in question.notes} & set(stated) else 1.0
    false_extra = set(_stated(question.extra, response)) - {question.asked.value(question.extra)}
    return max(1.0, score - bool(false_extra))


def _instruction_following(question: Question, response: str) -> float:
    """1, and 2 each for beginning and for ending with the mark asked for, 1 less where a mark stands elsewhere.

    2 where neither holds, but the response stands between two marks of another format.
    """
    mark, text = MARKS[question.marks], response.strip()
    opened, closed = text.startswith(f"{mark} "), text.endswith(f" {mark}")
    if not (opened or closed):
        return 1.0 + any(text.startswith(f"{other} ") and text.endswith(f" {other}") for other in MARKS.values())
    elsewhere = sum(text.count(other) for other in MARKS.values()) - opened - closed
    return 1.0 + 2.0 * opened + 2.0 * closed - (elsewhere > 0)


def _stated(attribute: Attribute, response: str) -> list[str]:
    """The different values that a response states, in their order."""
    words = re.findall(r"\w+", response)
    return list(dict.fromkeys(word for word in words if word in _VALUES[attribute]))


def _subject(response: str) -> str | None:
    """The first person named."""
    return next((word for word in re.findall(r"\w+", response) if word in NAMES), None)
