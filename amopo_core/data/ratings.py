"""One row of feedback into ratings on the common scale, or the reason why it is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from amopo_core.config import Score, Source
from amopo_core.data.tables import SCALE, Message, Scores

Reason = Literal[
    "no_prompt",
    "prompt_malformed",
    "no_response",
    "no_scores",
    "score_nested",
    "score_not_a_number",
    "score_not_finite",
    "score_outside_scale",
]
"""Why a row is refused."""

ROLES = ("system", "user", "assistant")


class Refused(Exception):
    """A row that cannot be used: the reason's code, and what came with how to mend it."""

    def __init__(self, reason: Reason, mend: str) -> None:
        super().__init__(f"{reason}: {mend}")
        self.reason, self.mend = reason, mend


@dataclass(frozen=True)
class Rating:
    """One rater's scores of one response, on the common scale."""

    prompt: list[Message]
    response: str
    scores: Scores
    """The dimensions that the source declares; None where unrated."""
    overall: float | None
    rater: str | None
    numeric_strings: int
    """How many of the scores came as text."""


def ratings_of(fields: Mapping[str, Any], source: Source) -> list[Rating]:
    """The ratings in a row: one where a row is a response, those of chosen and rejected where it is a pair.

    Raises:
        Refused: the first thing found wrong; one bad side of a pair refuses the row.
    """
    prompt = _prompt(look_up(fields, source.prompt), source.prompt)
    sides = ("",) if source.rows == "responses" else (f"{source.chosen}.", f"{source.rejected}.")
    return [_rating(fields, source, prompt, side) for side in sides]


def look_up(fields: Any, path: str) -> Any:
    """The value of a field, None where there is none; dots walk into objects unless a key has that very name."""
    if not isinstance(fields, Mapping):
        return None
    if path in fields:
        return fields[path]
    outer, dot, inner = path.partition(".")
    return look_up(fields.get(outer), inner) if dot else None


def common_score(value: float, score: Score) -> float:
    """The value on the common scale, 1 to 5: 1 + 4 (value - lowest) / (highest - lowest), turned where low is good."""
    (lowest, highest), (low, high) = score.scale, SCALE
    share = (value - lowest) / (highest - lowest)
    return low + (high - low) * (share if score.higher_is_better else 1 - share)


def _rating(fields: Mapping[str, Any], source: Source, prompt: list[Message], side: str) -> Rating:
    response = _response(look_up(fields, side + source.response), side + source.response)
    found = {name: look_up(fields, side + score.field) for name, score in source.scores.items()}
    scores = {name: _score(found[name], score, side + name) for name, score in source.scores.items()}
    overall = None
    if source.overall is not None:
        found["overall of the source"] = value = look_up(fields, side + source.overall.field)
        overall = _score(value, source.overall, f"{side}overall")
    if all(score is None for score in scores.values()):
        named = ", ".join(side + score.field for score in source.scores.values())
        raise Refused("no_scores", f"every score is missing or empty; give at least one of {named}")
    texts = sum(isinstance(value, str) and value.strip() != "" for value in found.values())
    rater = look_up(fields, source.rater) if source.rater else None
    return Rating(prompt, response, scores, overall, None if rater is None else str(rater), texts)


def _prompt(value: Any, name: str) -> list[Message]:
    if value is None or value == [] or (isinstance(value, str) and not value.strip()):
        raise Refused("no_prompt", f"`{name}` is missing or empty; give the prompt's text or messages")
    if isinstance(value, str):
        return [Message(role="user", content=value)]
    if not isinstance(value, list):
        said = f"`{name}` is {_shown(value)}; give a text or a list of messages"
        raise Refused("prompt_malformed", said)
    messages = [_message(turn, f"{name}[{position}]") for position, turn in enumerate(value)]
    if messages[-1]["role"] != "user":
        said = f"`{name}` ends with a turn of {messages[-1]['role']}; end it with the user's turn that is answered"
        raise Refused("prompt_malformed", said)
    if not messages[-1]["content"].strip():
        raise Refused("no_prompt", f"the last turn of `{name}` is empty; give the text that is answered")
    return messages


def _message(turn: Any, name: str) -> Message:
    if not isinstance(turn, Mapping) or set(turn) != {"role", "content"}:
        raise Refused("prompt_malformed", f"`{name}` is {_shown(turn)}; give {{role, content}} and nothing else")
    role, content = turn["role"], turn["content"]
    if role not in ROLES:
        raise Refused("prompt_malformed", f"the role of `{name}` is {_shown(role)}; give one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise Refused("prompt_malformed", f"the content of `{name}` is {_shown(content)}; give a text")
    return Message(role=role, content=content)


def _response(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        came = "missing or empty" if value is None or isinstance(value, str) else _shown(value)
        raise Refused("no_response", f"`{name}` is {came}; give the response's text")
    return value


def _score(value: Any, score: Score, name: str) -> float | None:
    """The score on the common scale; None where it is unrated."""
    number = _number(value, name)
    if number is None:
        return None
    lowest, highest = score.scale
    if not lowest <= number <= highest:
        raise Refused(
            "score_outside_scale",
            f"{name} is {_shown(value)}, its scale {lowest:g} to {highest:g}; correct the score, or the scale of"
            f" `{score.field}` in params.yaml",
        )
    return common_score(float(number), score)


def _number(value: Any, name: str) -> float | int | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, list | Mapping):
        raise Refused("score_nested", f"{name} is {_shown(value)}; name the one number in it as the score's field")
    number = _parsed(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, float | int):
        raise Refused("score_not_a_number", f"{name} is {_shown(value)}; give a number with a decimal point, or null")
    if isinstance(number, float) and not math.isfinite(number):
        raise Refused("score_not_finite", f"{name} is {_shown(value)}; give a number, or null where it is unrated")
    return number


def _parsed(text: str) -> float | None:
    """The number that a text writes; None where it writes none (Python's `1_0` is none)."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _shown(value: Any) -> str:
    """A value for a message, short."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
