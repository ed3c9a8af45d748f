"""The playground's world: who does what and when, questions about it, and the text both are written in and read from.

    Notes: Mira sings daily. Hugo paints weekly. Dora swims nightly.
    Question: Please tell me what Hugo does. Put it inside stars.

Every list of words is cut into `GROUPS` groups, in an order drawn from the seed. A combination of two words (a person
with an activity or a time, two parts of a sentence) is held out where the numbers of their groups sum to a multiple of
`GROUPS`. The people of a prompt are of one group, and so are their activities and their times: whatever a response
mixes up among them is held out where the prompt is, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

Attribute = Literal["activity", "time"]

GROUPS = 4
NOTES = 3
"""People in the notes of a prompt."""

NAMES, ACTIVITIES, TIMES = (
    tuple(words.split())
    for words in (
        "Ada Bela Cora Dora Elsa Hana Jana Mira Boris Emil Felix Hugo Igor Leon Otto Pavel",
        "sings paints swims reads cooks dances writes runs sews draws hikes bakes rides skates knits rows",
        "daily weekly monthly yearly nightly hourly early late often rarely always tonight soon today twice once",
    )
)
MARKS = {"dashes": "-", "stars": "*", "hashes": "#", "pluses": "+"}
"""The formats that can be asked for: the whole response between two of these."""

_LEADS = ("Please", "Now", "First", "Then")
_ASKS = ("tell me", "say", "find out", "look up")
_REQUESTS = ("Write it", "Put it", "Give it", "Set it")
_POSITIONS = ("inside", "between", "within", "in")
_WORDING: Mapping[Attribute, tuple[str, str]] = {"activity": ("what", "does"), "time": ("when", "acts")}


@dataclass(frozen=True)
class Note:
    """What is known of one person: two facts."""

    name: str
    activity: str
    time: str

    def value(self, attribute: Attribute) -> str:
        """The person's activity or time."""
        return self.activity if attribute == "activity" else self.time


@dataclass(frozen=True)
class Question:
    """All that a prompt says: the notes, what is asked about whom, and the format asked for."""

    notes: tuple[Note, ...]
    name: str
    attribute: Attribute
    marks: str
    """A key of `MARKS`."""

    @property
    def asked(self) -> Note:
        """The note that holds the answer."""
        return next(note for note in self.notes if note.name == self.name)

    @property
    def others(self) -> list[Note]:
        """The notes about somebody else."""
        return [note for note in self.notes if note.name != self.name]

    @property
    def extra(self) -> Attribute:
        """The attribute that was not asked for."""
        return "time" if self.attribute == "activity" else "activity"


@dataclass(frozen=True)
class Template:
    """How a question is put: one word of each list."""

    lead: str
    ask: str
    request: str
    position: str

    def prompt(self, question: Question) -> str:
        """The text of a prompt."""
        word, verb = _WORDING[question.attribute]
        asked = f"{self.lead} {self.ask} {word} {question.name} {verb}."
        return f"{notes_text(question.notes)}\nQuestion: {asked} {self.request} {self.position} {question.marks}."


class Domain:
    """The world of one seed: which words are in which group, hence which facts and templates are held out."""

    def __init__(self, seed: int) -> None:
        rng = Random(f"domain {seed}")
        self.names, self.activities, self.times = (_groups(words, rng) for words in (NAMES, ACTIVITIES, TIMES))
        self._leads, self._asks = _groups(_LEADS, rng), _groups(_ASKS, rng)
        self._requests, self._positions = _groups(_REQUESTS, rng), _groups(_POSITIONS, rng)

    def question(self, rng: Random, *, held_out: bool) -> Question:
        """A question over facts that are all held out, or none of them."""
        group = rng.randrange(GROUPS)
        names = rng.sample(self.names[group], NOTES)
        activities = rng.sample(self.activities[_partner(group, rng, held_out)], NOTES)
        times = rng.sample(self.times[_partner(group, rng, held_out)], NOTES)
        notes = tuple(Note(*facts) for facts in zip(names, activities, times, strict=True))
        return Question(notes, rng.choice(names), rng.choice(list(_WORDING)), rng.choice(list(MARKS)))

    def template(self, rng: Random, *, held_out: bool) -> Template:
        """A template whose question and whose request are both held out, or neither."""
        lead, request = rng.randrange(GROUPS), rng.randrange(GROUPS)
        return Template(
            rng.choice(self._leads[lead]),
            rng.choice(self._asks[_partner(lead, rng, held_out)]),
            rng.choice(self._requests[request]),
            rng.choice(self._positions[_partner(request, rng, held_out)]),
        )


def notes_text(notes: Sequence[Note]) -> str:
    """The notes as every prompt begins with them."""
    return "Notes: " + " ".join(f"{note.name} {note.activity} {note.time}." for note in notes)


def read_question(text: str) -> Question | None:
    """What a prompt's text says, whatever stands before it; None where it is no prompt of this world."""
    before, _, question = text.rpartition("Question:")
    notes = tuple(Note(*facts) for facts in re.findall(r"(\w+) (\w+) (\w+)\.", before.rpartition("Notes:")[2]))
    words = re.findall(r"\w+", question)
    names = [note.name for note in notes if note.name in words]
    attributes = [attribute for attribute, (word, _) in _WORDING.items() if word in words]
    marks = [name for name in MARKS if name in words]
    if len(names) != 1 or len(attributes) != 1 or len(marks) != 1:
        return None
    return Question(notes, names[0], attributes[0], marks[0])


def _groups(words: Sequence[str], rng: Random) -> list[list[str]]:
    shuffled = rng.sample(words, len(words))
    return [shuffled[group::GROUPS] for group in range(GROUPS)]


def _partner(group: int, rng: Random, held_out: bool) -> int:
    """A group that together with `group` is held out, or is not."""
    return -group % GROUPS if held_out else (rng.randrange(1, GROUPS) - group) % GROUPS
