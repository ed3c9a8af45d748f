"""The tables between the stages: one dataclass a row, Parquet in and out, byte-identical for identical rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from json import dumps
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from amopo_core.errors import UserError

Scores = Mapping[str, float | None]
"""A score per dimension on the common scale, 1 to 5; None where unrated."""

SCALE = (1.0, 5.0)
"""The common scale that every source's scores are brought to."""

TIE = 1e-9
"""Scores closer than this are equal [points of the common scale]: rounding alone parts them."""


class Message(TypedDict):
    """One turn of a prompt."""

    role: str
    content: str


@dataclass(frozen=True)
class Origin:
    """Where a row came from."""

    source: str
    batch: str
    line: int


@dataclass(frozen=True)
class RatedResponse:
    """A row of `normalized`: one response with its scores."""

    prompt_id: str
    prompt: Sequence[Message]
    response_id: str
    response: str
    scores: Scores
    overall: float | None
    """The source's own overall score on the common scale; None where it has none."""
    raters: int
    """How many ratings the scores are the mean of."""
    agreement: float | None
    """1 minus the raters' mean absolute deviation over half the scale, mean over the dimensions; None: one rater."""
    origins: Sequence[Origin]
    """Every incoming row that this one was made of."""


@dataclass(frozen=True)
class Pair:
    """A row of `pairs`: two responses to one prompt, the better one first."""

    pair_id: str
    prompt_id: str
    prompt: Sequence[Message]
    chosen: str
    rejected: str
    chosen_scores: Scores
    rejected_scores: Scores


def score_gap(first: float | None, second: float | None) -> float | None:
    """`first` minus `second` [points of the common scale]: exactly 0 where they tie, None where one is unrated."""
    if first is None or second is None:
        return None
    return 0.0 if abs(first - second) < TIE else first - second


def text_id(value: Any) -> str:
    """16 hexadecimal digits that name a JSON value by its content."""
    return sha256(dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()[:16]


def write_rated(path: Path, rows: Iterable[RatedResponse], dimensions: Sequence[str]) -> None:
    """Write `normalized`; `dimensions` names the columns also where no row has a score."""
    schema = pa.schema(
        [
            ("prompt_id", pa.string()),
            ("prompt", _MESSAGES),
            ("response_id", pa.string()),
            ("response", pa.string()),
            ("scores", _scores_type(dimensions)),
            ("overall", pa.float64()),
            ("raters", pa.int32()),
            ("agreement", pa.float64()),
            ("origins", pa.list_(pa.struct([("source", pa.string()), ("batch", pa.string()), ("line", pa.int64())]))),
        ]
    )
    _write(path, [asdict(row) for row in rows], schema)


def read_rated(path: Path) -> list[RatedResponse]:
    """The rows of `normalized`."""
    return [RatedResponse(**row | {"origins": [Origin(**o) for o in row["origins"]]}) for row in _read(path)]


def write_pairs(path: Path, rows: Iterable[Pair], dimensions: Sequence[str]) -> None:
    """Write one split of `pairs`."""
    schema = pa.schema(
        [
            ("pair_id", pa.string()),
            ("prompt_id", pa.string()),
            ("prompt", _MESSAGES),
            ("chosen", pa.string()),
            ("rejected", pa.string()),
            ("chosen_scores", _scores_type(dimensions)),
            ("rejected_scores", _scores_type(dimensions)),
        ]
    )
    _write(path, [asdict(row) for row in rows], schema)


def read_pairs(path: Path) -> list[Pair]:
    """The rows of one split of `pairs`."""
    return [Pair(**row) for row in _read(path)]


_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def _scores_type(dimensions: Sequence[str]) -> pa.DataType:
    return pa.struct([(dimension, pa.float64()) for dimension in dimensions])


def _write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), beside, compression="zstd")
    beside.replace(path)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except FileNotFoundError:
        raise UserError(f"{path} is not here; the stage before this one makes it: run `dvc repro`") from None
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is not a Parquet table ({error}); remove it and run `dvc repro`") from None
    return rows
