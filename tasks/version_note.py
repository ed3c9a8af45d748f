"""What MLflow shows of a version: its model card, or as many of its sections as MLflow's database takes."""

from __future__ import annotations

import re

CARD_FILE = "model_card.md"
"""The whole card among a version's artifacts; MLflow names it so."""
_MOST = 5000
"""Characters; PostgreSQL refuses longer ones, SQLite takes any."""
_POINTER = f"the whole card is the artifact {CARD_FILE}"


def version_note(card: str) -> str:
    """The card; of one that is too long, all but the longest sections, which are named, in Markdown."""
    sections, left_out = _sections(card), []
    note = card
    while len(note) > _MOST and len(sections) > 1:
        longest = max(sections[1:], key=len)
        sections.remove(longest)
        left_out.append(longest.splitlines()[0].removeprefix("## "))
        note = f"{''.join(sections).rstrip()}\n\n{_last_line(left_out)}"
    if len(note) > _MOST:  # the description of the dimensions alone
        last = _last_line(left_out)
        note = f"{note[: _MOST - len(last) - 2]}\n\n{last}"
    return note


def is_cut(note: str) -> bool:
    """Whether a version's note is less than its card."""
    return note.rstrip().endswith(f"{_POINTER}.")


def _last_line(left_out: list[str]) -> str:
    return f"Left out here: {', '.join(left_out) or 'the end'}; {_POINTER}.\n"


def _sections(card: str) -> list[str]:
    """The card's beginning, then its sections; a heading in a fenced text is none."""
    found, fence = [""], ""
    for line in card.splitlines(keepends=True):
        if fence:
            fence = "" if line.rstrip() == fence else fence
        elif opened := re.match(r"`{3,}", line):
            fence = opened[0]
        elif line.startswith("## "):
            found.append("")
        found[-1] += line
    return found
