"""What a feedback file holds, and the lines of params.yaml that would describe it as a source."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

PROMPT_NAMES = ("prompt", "question", "instruction", "input", "query", "messages", "context")
RESPONSE_NAMES = ("response", "answer", "output", "completion", "reply", "summary", "text")
RATER_NAMES = ("rater", "annotator", "rater_id", "annotator_id", "worker", "worker_id")
OVERALL = "overall"
UNKNOWN = "FIELD"
YAML_WORDS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")
"""Words that YAML, or an older YAML, takes for something else than a text."""

_NUMERIC = {"number", "number as text", "not finite", "null"}


@dataclass(frozen=True)
class Field:
    """What was seen of one field; nested ones are named with dots."""

    name: str
    types: frozenset[str] = frozenset()
    """JSON's names of the types, `number as text` and `not finite`."""
    lowest: float = math.inf
    highest: float = -math.inf

    @property
    def is_number(self) -> bool:
        """Whether there were numbers, as such or as text, and nothing else but what is missing."""
        return self.lowest <= self.highest and self.types <= _NUMERIC

    def seen(self, value: Any) -> Field:
        """The field with one more value."""
        number = _number(value)
        if number is None:
            return self.joined(Field(self.name, frozenset([_type(value)])))
        kind = "number as text" if isinstance(value, str) else "number"
        if not math.isfinite(number):
            return self.joined(Field(self.name, frozenset(["not finite"])))
        return self.joined(Field(self.name, frozenset([kind]), number, number))

    def joined(self, other: Field) -> Field:
        """The field with what was seen of another."""
        lowest, highest = min(self.lowest, other.lowest), max(self.highest, other.highest)
        return replace(self, types=self.types | other.types, lowest=lowest, highest=highest)

    def __str__(self) -> str:
        seen = f", {self.lowest:g} to {self.highest:g}" if self.is_number else ""
        return f"{self.name}: {' or '.join(sorted(self.types))}{seen}"


@dataclass(frozen=True)
class Description:
    """The fields of a file's rows, in the order of their first appearance, and how to declare the source."""

    source: str
    rows: int
    fields: Sequence[Field]

    @property
    def suggestion(self) -> str:
        """The lines of params.yaml to copy; scales and descriptions, which rows cannot tell, are left to fill in."""
        names = [found.name for found in self.fields]
        are_pairs = any(name.startswith("chosen.") for name in names) and any(n.startswith("rejected.") for n in names)
        response_fields = _merged(self.fields, ("chosen.", "rejected.") if are_pairs else ("",))
        numbers = {name: found for name, found in response_fields.items() if found.is_number}
        overall = numbers.pop(OVERALL, None) if len(numbers) > 1 else None
        rater = _first(RATER_NAMES, names)
        numbers.pop(rater or "", None)
        return "\n".join(
            [
                "dimensions:   # add those that are not declared yet, and say what a high score means",
                *(f'  {_quoted(_dimension(name))}: {{description: "", weight: 1.0}}' for name in numbers),
                "sources:",
                f"  {self.source}:",
                f"    rows: {'pairs' if are_pairs else 'responses'}",
                f"    prompt: {_quoted(_first(PROMPT_NAMES, names) or UNKNOWN)}",
                *(["    chosen: chosen", "    rejected: rejected"] if are_pairs else []),
                f"    response: {_quoted(_first(RESPONSE_NAMES, list(response_fields)) or UNKNOWN)}",
                *([f"    rater: {_quoted(rater)}"] if rater else []),
                "    scores:   # remove what is no score",
                *(f"      {_quoted(_dimension(name))}: {_score(found)}" for name, found in numbers.items()),
                *([f"    overall: {_score(overall)}"] if overall else []),
            ]
        )


def describe(rows: Iterable[Mapping[str, Any]], source: str) -> Description:
    """What was seen in the rows, as the description of a source of that name."""
    found: dict[str, Field] = {}
    count = 0
    for row in rows:
        count += 1
        for name, value in _leaves(row, ""):
            found[name] = found.get(name, Field(name)).seen(value)
    return Description(source, count, list(found.values()))


def _leaves(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _leaves(item, f"{prefix}{key}.")
        else:
            yield prefix + key, item


def _merged(fields: Iterable[Field], sides: Sequence[str]) -> dict[str, Field]:
    """The fields within the sides by their name there; what was seen on both sides is joined."""
    merged: dict[str, Field] = {}
    for found in fields:
        for side in sides:
            if found.name.startswith(side):
                name = found.name.removeprefix(side)
                merged[name] = merged.get(name, Field(name)).joined(found)
    return merged


def _first(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in names), None)


def _dimension(name: str) -> str:
    """A field's name as the name of a dimension: letters, digits and underscores."""
    return re.sub(r"\W+", "_", name.rpartition(".")[2], flags=re.ASCII).strip("_") or UNKNOWN


def _quoted(name: str) -> str:
    """A name for YAML, in quotes where it needs them."""
    is_plain = re.fullmatch(r"[A-Za-z_][\w.]*", name, flags=re.ASCII) and name.lower() not in YAML_WORDS
    return name if is_plain else json.dumps(name, ensure_ascii=False)


def _score(found: Field) -> str:
    seen = f"seen {found.lowest:g} to {found.highest:g}"
    return f"{{field: {_quoted(found.name)}, scale: [LOWEST, HIGHEST]}}   # {seen}; declare the scale"


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
    except OverflowError:
        return math.inf


def _type(value: Any) -> str:
    if value is None or value == "":
        return "null"
    return {str: "text", bool: "boolean", list: "list"}.get(type(value), "number")
