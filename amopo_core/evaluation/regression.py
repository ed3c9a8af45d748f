"""The regression set: the user's own prompts, in which no new champion may do much worse than the one before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from amopo_core.config import Params
from amopo_core.data.tables import Message, text_id
from amopo_core.errors import located
from amopo_core.evaluation.bootstrap import Interval
from amopo_core.evaluation.comparison import JUDGE_SCORE, compare, contrast_of
from amopo_core.evaluation.measurement import Answer, Measurement

REFERENCE = "reference_responses"
"""What is compared where there is no judge."""


class Turn(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    role: str = Field(min_length=1)
    content: str


class RegressionPrompt(BaseModel):
    """One line of the regression set."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt: str | list[Turn] = Field(min_length=1)
    """The user's words, or the conversation so far."""
    response: str | None = Field(default=None, min_length=1)
    """A good response; needed where there is no judge."""

    @property
    def messages(self) -> list[Message]:
        """The prompt as a conversation."""
        if isinstance(self.prompt, str):
            return [{"role": "user", "content": self.prompt}]
        return [{"role": turn.role, "content": turn.content} for turn in self.prompt]


@dataclass(frozen=True)
class RegressionResult:
    """What one policy did on the regression set."""

    answers: Sequence[Answer]
    reference_logps: Sequence[float] | None
    """Mean log-probability of each reference response [nats per token]; None where a judge scores the answers."""


@dataclass(frozen=True)
class Regression:
    """The candidate beside the incumbent on the regression set."""

    prompts: int
    unit: str
    differences: Mapping[str, Interval]
    """Candidate minus incumbent by dimension; without a judge, of the reference responses alone."""


def read_regression(path: Path, *, judged: bool) -> dict[str, RegressionPrompt]:
    """The prompts of a regression set by the id of their text, in the file's order; lines that begin with # are notes.

    Raises:
        UserError: the file is not here, or with its line: a row that is none, comes twice, or lacks the response that
            is needed where nothing judges the answers.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # only line feeds: a text may hold other line ends
    except (OSError, UnicodeDecodeError) as error:
        raise located(
            path, 1, f"cannot be read ({error}); promotion.regression names a file of JSON lines, which may be empty"
        ) from None
    found: dict[str, RegressionPrompt] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        row = _row(path, number, line)
        if row.response is None and not judged:
            raise located(path, number, 'has no "response", which is what is measured where there is no judge; add one')
        if (name := text_id(row.messages)) in found:
            raise located(path, number, "this prompt is in the file already; remove one of the two")
        found[name] = row
    return found


def compare_regression(
    incumbent: RegressionResult, candidate: RegressionResult, prompt_ids: Sequence[str], params: Params
) -> Regression:
    """How the candidate differs from the incumbent, with paired bootstrap intervals over the prompts."""
    if incumbent.reference_logps is None or candidate.reference_logps is None:
        before, after = (Measurement(pairs=[], answers=result.answers) for result in (incumbent, candidate))
        compared = compare(before, after, params, JUDGE_SCORE)
        differences = {name: found.difference for name, found in compared.dimensions.items() if found}
        return Regression(len(prompt_ids), JUDGE_SCORE.unit, differences)
    values_ES = np.array([incumbent.reference_logps, candidate.reference_logps]).T
    difference = contrast_of(values_ES, prompt_ids, params).difference
    return Regression(len(prompt_ids), "nats per token", {REFERENCE: difference})


def _row(path: Path, number: int, line: str) -> RegressionPrompt:
    expected = 'expected {"prompt": "…" or [{"role": "…", "content": "…"}], "response": "…"}'
    try:
        return RegressionPrompt.model_validate(json.loads(line))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("str", "list[Turn]"))
        raise located(path, number, f"{where}: {first['msg']}; {expected}") from None
    except (ValueError, RecursionError) as error:
        raise located(path, number, f"is no JSON ({error}); {expected}") from None
