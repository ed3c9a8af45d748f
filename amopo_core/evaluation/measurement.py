"""What one policy did on the held-out prompts: one row an example, written as JSON lines and read back.

Nothing here needs a model, so what only reads a measurement starts without one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from amopo_core.atomic import replacing
from amopo_core.data.tables import Message
from amopo_core.errors import UserError, located


@dataclass(frozen=True)
class RankedPair:
    """What a policy makes of one test pair."""

    pair_id: str
    prompt_id: str
    chosen_logp: float | None
    """Mean log-probability of the chosen response [nats per token]; None where the pair does not fit the context."""
    rejected_logp: float | None
    """Mean log-probability of the rejected response [nats per token]; None where the pair does not fit the context."""
    score_gaps: Mapping[str, float | None]
    """Per dimension, the score of chosen minus that of rejected: 0 where they tie, None where one is unrated."""
    truncated: int
    """Tokens of the prompt's text that were left out [tokens]."""

    def margin(self, dimension: str) -> float | None:
        """Mean log-probability of the response that is better in this dimension minus the other's [nats per token].

        The dimension's own order counts, whichever response was chosen overall. None where the dimension ties or is
        unrated, or where the policy could not read the pair.

        Raises:
            UserError: a log-probability is no finite number, which an older version wrote without a word.
        """
        gap = self.score_gaps.get(dimension)
        if not gap or self.chosen_logp is None or self.rejected_logp is None:
            return None
        chosen_minus_rejected = self.chosen_logp - self.rejected_logp
        if not isfinite(chosen_minus_rejected):
            raise UserError(f"test pair {self.pair_id} has no finite log-probability; run `dvc repro`")
        return chosen_minus_rejected if gap > 0 else -chosen_minus_rejected


@dataclass(frozen=True)
class Answer:
    """A generated response and what can be said of it."""

    prompt_id: str
    prompt: Sequence[Message]
    response: str
    tokens: int
    """Length without the end token [tokens]."""
    ended: bool
    """True where the end token came before the tokens ran out."""
    repetition: float
    """Share of the response's 3-grams that it holds already, 0 to 1 (exclusive)."""
    scores: Mapping[str, float] | None
    """The judge's score per dimension, 1 to 5; None without a judge."""


@dataclass(frozen=True)
class Measurement:
    """What one policy did."""

    pairs: Sequence[RankedPair]
    answers: Sequence[Answer]

    @property
    def judged(self) -> bool:
        """True where the answers carry a judge's scores."""
        return any(answer.scores is not None for answer in self.answers)


def write_measurement(path: Path, measurement: Measurement) -> None:
    """Write one JSON line an example: the pairs, then the answers."""
    rows = [{"kind": "pair", **asdict(pair)} for pair in measurement.pairs]
    rows += [{"kind": "answer", **asdict(answer)} for answer in measurement.answers]
    with replacing(path) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_measurement(path: Path) -> Measurement:
    """The measurement that `write_measurement` wrote.

    Raises:
        UserError: the file is missing, or a line is not one of its rows.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # only line feeds: a text may hold other line ends
    except FileNotFoundError:
        raise UserError(f"{path} is not here; its stage makes it: run `dvc repro`") from None
    rows = [_row(path, number, line) for number, line in enumerate(lines, start=1)]
    return Measurement(
        pairs=[row for row in rows if isinstance(row, RankedPair)],
        answers=[row for row in rows if isinstance(row, Answer)],
    )


_KINDS: Mapping[str, type[RankedPair] | type[Answer]] = {"pair": RankedPair, "answer": Answer}


def _row(path: Path, number: int, line: str) -> RankedPair | Answer:
    try:
        fields: dict[str, Any] = json.loads(line)
        row: RankedPair | Answer = _KINDS[fields.pop("kind")](**fields)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise located(path, number, "not a row of a measurement; remove the file and run `dvc repro`") from None
    return row
