"""The ledger as it was read: its entries, whom MLflow serves, and how the two agree. Asks nobody."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import shorten
from typing import Literal

from tasks.errors import OutsideError
from tasks.registry import CHAMPION, MODEL

How = Literal["began", "promoted", "approved", "promoted by hand", "rolled back", "moved outside", "lost"]
"""Why an entry is there. `began`: who was champion before there was a ledger; `moved outside`, `lost`: the alias was
set or deleted in MLflow, not by this program."""
LONGEST = 2000
"""Characters of a reason at most: PostgreSQL holds 5,000 in a tag."""
DONE = ".done"
"""Behind an entry's key, the tag that says that the alias is where the entry says."""
_KEY = re.compile(r"ledger\.(\d{6})\.[0-9a-f]{8}")


@dataclass(frozen=True)
class Entry:
    """One change of champion."""

    version: str | None
    """The number of the version that is champion from here on; None: nobody is served."""
    at: str
    """When, in UTC."""
    how: How
    why: str
    by: str
    """A person, or a flow run."""


@dataclass(frozen=True)
class Kept:
    """An entry as its tag holds it."""

    number: int
    key: str
    entry: Entry
    done: bool
    """Whether the alias was seen where the entry says."""


@dataclass(frozen=True)
class Ledger:
    """The ledger, and whom MLflow serves."""

    kept: tuple[Kept, ...]
    """Oldest first, one of each running number."""
    alias: str | None
    """The number of the version that has the alias."""

    @property
    def entries(self) -> list[Entry]:
        """Every change of champion, oldest first."""
        return [kept.entry for kept in self.kept]

    @property
    def number(self) -> int:
        """The running number of the last entry; 0 where there is none."""
        return self.kept[-1].number if self.kept else 0

    @property
    def champions(self) -> list[str]:
        """The champions up to the present one, without those that were rolled back from: what a rollback walks down."""
        stack: list[str] = [] if self.kept or not self.alias else [self.alias]
        for entry in self.entries:
            if entry.version is None:
                continue
            if entry.how in ("rolled back", "moved outside") and entry.version in stack:
                while stack[-1] != entry.version:
                    stack.pop()
            elif stack[-1:] != [entry.version]:
                stack.append(entry.version)
        return stack

    @property
    def champion(self) -> str | None:
        """The number of the champion, also where its alias was lost; None before the first one."""
        return self.champions[-1] if self.champions else None

    @property
    def standing(self) -> Literal["whole", "unwritten", "pending", "lost", "moved"]:
        """How ledger and alias agree.

        `unwritten`: a champion from before there was a ledger; `pending`: an entry whose alias has not moved yet, by a
        command that works or was killed; `lost`, `moved`: the alias was changed outside this program.
        """
        if not self.kept:
            return "unwritten" if self.alias else "whole"
        if self.kept[-1].entry.version == self.alias:
            return "whole"
        if not self.kept[-1].done:
            return "pending"
        return "moved" if self.alias else "lost"

    @property
    def trouble(self) -> str | None:
        """What somebody who looks should know; None where nothing is wrong."""
        if self.standing == "pending":
            return (
                f"version {self.champion} is to be champion, and the alias is not there yet: a command is at work, or"
                " was killed; `amopo history` completes it"
            )
        if self.standing == "moved":
            return f"the alias {CHAMPION} was moved from version {self.champion} to {self.alias}, not by this program"
        if self.alias is None and self.champion:
            return (
                f"no version has the alias {CHAMPION}, so nobody is served: it was removed, not by this program;"
                f" `amopo promote {self.champion} --reason TEXT` gives it back to the last champion,"
                " `amopo rollback --reason TEXT` to the one before"
            )
        return None


def key_of(number: int, token: str) -> str:
    """The tag of an entry; `token` keeps two writers of one number apart."""
    return f"ledger.{number:06d}.{token}"


def keys_of(number: int, tags: Mapping[str, str]) -> list[str]:
    """The tags of all entries of that number: more than one while two writers meet."""
    return [key for key in tags if (found := _KEY.fullmatch(key)) and int(found[1]) == number]


def kept_in(tags: Mapping[str, str]) -> tuple[Kept, ...]:
    """One entry of each number: the one that came about, where killed commands left several.

    Raises:
        OutsideError: a tag was changed by hand so that it is no entry.
    """
    same: dict[int, list[Kept]] = {}
    for key, text in tags.items():
        if found := _KEY.fullmatch(key):
            kept = Kept(int(found[1]), key, _parsed(key, text), key + DONE in tags)
            same.setdefault(kept.number, []).append(kept)
    return tuple(min(same[number], key=_precedence) for number in sorted(same))


def _precedence(kept: Kept) -> tuple[bool, str]:
    return not kept.done, kept.key


def _parsed(key: str, text: str) -> Entry:
    try:
        return Entry(**json.loads(text))
    except (ValueError, TypeError):
        raise OutsideError(
            f"the tag {key} of MLflow's registered model {MODEL} is no entry of the ledger: {shorten(text, 80)};"
            " expected the JSON that this program wrote there; mend or delete the tag on MLflow's page of the model"
        ) from None
