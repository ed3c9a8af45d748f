"""The tables between the stages: columns, ids, and the pairs as objects. A text is stored once; tables name it by id.

    data/normalized/ratings.parquet      what each row of feedback said: source, batch, line, who, about which response
    data/normalized/comparisons.parquet  the same for two responses that were compared without scores
    data/normalized/responses.parquet    one row a response: its scores on the common scale, over all its raters
    data/normalized/texts/*.parquet      id -> text: responses as they are, prompts as JSON messages
    data/pairs/{train,validation,test}.parquet, data/pairs/texts/*.parquet
    data/pairs/manifest.parquet          the rows of feedback behind the pairs: source, batch, line, split

Ids are the first 64 bits of a SHA-256, written as 16 hexadecimal digits wherever a person sees them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from json import dumps
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

import polars as pl
import pyarrow.parquet as pq

from amopo_core.errors import UserError

Scores = Mapping[str, float | None]
"""A score per dimension on the common scale, 1 to 5; None where unrated."""

SCALE = (1.0, 5.0)
"""The common scale that every source's scores are brought to."""

TIE = 1e-9
"""Scores closer than this are equal [points of the common scale]: rounding alone parts them."""

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

RATINGS, COMPARISONS, RESPONSES, TEXTS = "ratings.parquet", "comparisons.parquet", "responses.parquet", "texts"

MANIFEST = "manifest.parquet"
MANIFEST_COLUMNS = {"source": pl.String(), "batch": pl.String(), "line": pl.Int64(), "split": pl.String()}

SCORE, CHOSEN, REJECTED, GAP = "score.", "chosen.", "rejected.", "gap."
"""What the names of columns with a value per dimension begin with."""

COMPRESSION: Literal["zstd"] = "zstd"
LEVEL = 1
ROW_GROUP = 50_000


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
class Pair:
    """Two responses to one prompt, the better one first."""

    pair_id: str
    prompt_id: str
    prompt: Sequence[Message]
    chosen: str
    rejected: str
    chosen_scores: Scores
    rejected_scores: Scores
    preferences: Scores = field(default_factory=dict)
    """How far people preferred `chosen` where it is not scored on both sides [points]; below 0: `rejected`."""
    weight: float = 1.0
    """Factor of the pair's loss, above 0, at most 1: below 1 where its raters agree little."""

    def gap(self, dimension: str) -> float | None:
        """How far `chosen` is above `rejected` in a dimension [points of the common scale]; None: unknown."""
        scored = score_gap(self.chosen_scores.get(dimension), self.rejected_scores.get(dimension))
        return self.preferences.get(dimension) if scored is None else scored


def score_gap(first: float | None, second: float | None) -> float | None:
    """`first` minus `second` [points of the common scale]: exactly 0 where they tie, None where one is unrated."""
    if first is None or second is None:
        return None
    return 0.0 if abs(first - second) < TIE else first - second


def text_id(value: Any) -> str:
    """16 hexadecimal digits that name a JSON value by its content."""
    text = encode_basestring(value) if isinstance(value, str) else dumps(value, ensure_ascii=False, sort_keys=True)
    return sha256(text.encode()).hexdigest()[:16]


def written(number: int) -> str:
    """An id of a table as people read it."""
    return f"{number:016x}"


def rating_columns(dimensions: Sequence[str]) -> dict[str, pl.DataType]:
    """The columns of `ratings`: a row for every response that a row of feedback spoke of.

    `score.*` and `overall` are on the common scale, null where unrated; all are null where it was only compared.
    `said` names what was said: exactly the same from one source counts once. `position` places the prompt's text in
    [0, 1) for its split; `letters` names the response but for its white space; `characters` is the response's length.
    """
    return {
        "source": pl.String(),
        "batch": pl.String(),
        "line": pl.Int64(),
        "prompt_id": pl.UInt64(),
        "response_id": pl.UInt64(),
        "said": pl.UInt64(),
        "rater": pl.String(),
        **{SCORE + name: pl.Float64() for name in dimensions},
        "overall": pl.Float64(),
        "position": pl.Float64(),
        "letters": pl.UInt64(),
        "characters": pl.UInt32(),
    }


def comparison_columns(dimensions: Sequence[str]) -> dict[str, pl.DataType]:
    """The columns of `comparisons`; `gap.*` is above 0 where the first response was preferred [points]."""
    return {
        "source": pl.String(),
        "batch": pl.String(),
        "line": pl.Int64(),
        "prompt_id": pl.UInt64(),
        "first_id": pl.UInt64(),
        "second_id": pl.UInt64(),
        "said": pl.UInt64(),
        "rater": pl.String(),
        **{GAP + name: pl.Float64() for name in dimensions},
    }


def response_columns(dimensions: Sequence[str]) -> dict[str, pl.DataType]:
    """The columns of `responses`, sorted by prompt_id, then response_id.

    `raters` counts the ratings behind the scores; `agreement` is 1 minus their mean absolute deviation over half the
    scale, mean over the dimensions, null for one rater; `weight` is below 1 where they agree less than asked for.
    """
    return {
        "prompt_id": pl.UInt64(),
        "response_id": pl.UInt64(),
        **{SCORE + name: pl.Float64() for name in dimensions},
        "overall": pl.Float64(),
        "raters": pl.UInt32(),
        "agreement": pl.Float64(),
        "weight": pl.Float64(),
        "position": pl.Float64(),
        "letters": pl.UInt64(),
        "characters": pl.UInt32(),
    }


def pair_columns(dimensions: Sequence[str]) -> dict[str, pl.DataType]:
    """The columns of a split of `pairs`, sorted by prompt_id, then pair_id; `gap.*`: see `Pair.gap`."""
    return {
        "pair_id": pl.UInt64(),
        "prompt_id": pl.UInt64(),
        "chosen_id": pl.UInt64(),
        "rejected_id": pl.UInt64(),
        **{CHOSEN + name: pl.Float64() for name in dimensions},
        **{REJECTED + name: pl.Float64() for name in dimensions},
        **{GAP + name: pl.Float64() for name in dimensions},
        "weight": pl.Float64(),
    }


def scan(path: Path) -> pl.LazyFrame:
    """A table of an earlier stage, read when it is collected.

    Raises:
        UserError: it is missing or no Parquet table.
    """
    try:
        table = pl.scan_parquet(path)
        table.collect_schema()
    except FileNotFoundError:
        raise UserError(f"{path} is not here; the stage before this one makes it: run `dvc repro`") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path} is not a Parquet table ({error}); remove it and run `dvc repro`") from None
    return table


def scan_texts(folder: Path) -> pl.LazyFrame:
    """The texts beside the tables of a folder: `id`, `text`; a text that came in several batches is there once each."""
    files = sorted((folder / TEXTS).glob("*.parquet"))
    return pl.scan_parquet(files) if files else pl.LazyFrame(schema=TEXT_COLUMNS)


def texts_of(folder: Path, ids: pl.Series) -> dict[int, str]:
    """The texts of the given ids."""
    wanted = ids.unique()
    table = scan_texts(folder).filter(pl.col("id").is_in(wanted.implode())).collect(engine="streaming")
    return dict(zip(table["id"], table["text"], strict=True))


TEXT_COLUMNS = {"id": pl.UInt64(), "text": pl.String()}


def read_pairs(path: Path) -> list[Pair]:
    """The rows of one split of `pairs`, with their texts from the folder beside it."""
    table = scan(path).collect()
    ids = pl.concat(
        [table["prompt_id"], table["chosen_id"].alias("prompt_id"), table["rejected_id"].alias("prompt_id")]
    )
    texts = texts_of(path.parent, ids)
    if missing := set(ids) - set(texts):
        raise UserError(f"{path.parent / TEXTS} lacks {len(missing)} texts; remove it and run `dvc repro`")
    prompts = {number: cast(list[Message], json.loads(texts[number])) for number in table["prompt_id"].unique()}
    names = [name.removeprefix(GAP) for name in table.columns if name.startswith(GAP)]
    return [
        pair_of(row, names, prompts[row["prompt_id"]], texts[row["chosen_id"]], texts[row["rejected_id"]])
        for row in table.iter_rows(named=True)
    ]


def pair_of(
    row: Mapping[str, Any], dimensions: Sequence[str], prompt: Sequence[Message], chosen: str, rejected: str
) -> Pair:
    """A row of `pairs` with its texts."""
    chosen_scores = {name: row[CHOSEN + name] for name in dimensions}
    rejected_scores = {name: row[REJECTED + name] for name in dimensions}
    unscored = [name for name in dimensions if chosen_scores[name] is None or rejected_scores[name] is None]
    return Pair(
        pair_id=written(row["pair_id"]),
        prompt_id=written(row["prompt_id"]),
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        chosen_scores=chosen_scores,
        rejected_scores=rejected_scores,
        preferences={name: row[GAP + name] for name in unscored if row[GAP + name] is not None},
        weight=row["weight"],
    )


def write_pairs(path: Path, rows: Iterable[Pair], dimensions: Sequence[str]) -> None:
    """Write one split of `pairs` and its texts beside it."""
    pairs, texts = list(rows), dict[int, str]()
    table = []
    for pair in pairs:
        ids = [int(text_id(said), 16) for said in (pair.prompt, pair.chosen, pair.rejected)]
        texts |= zip(ids, (dumps(pair.prompt, ensure_ascii=False), pair.chosen, pair.rejected), strict=True)
        table.append(
            dict(zip(("prompt_id", "chosen_id", "rejected_id"), ids, strict=True))
            | {"pair_id": int(pair.pair_id, 16), "weight": pair.weight}
            | {CHOSEN + name: pair.chosen_scores.get(name) for name in dimensions}
            | {REJECTED + name: pair.rejected_scores.get(name) for name in dimensions}
            | {GAP + name: pair.gap(name) for name in dimensions}
        )
    write_table(path, pl.DataFrame(table, schema=pair_columns(dimensions)))
    written_texts = pl.DataFrame({"id": list(texts), "text": list(texts.values())}, schema=TEXT_COLUMNS)
    write_table(path.parent / TEXTS / path.name, written_texts)


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Write a table so that it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    table.write_parquet(beside, compression=COMPRESSION, compression_level=LEVEL)
    beside.replace(path)


class TableWriter:
    """A Parquet table that is written part by part and appears when the block ends well."""

    def __init__(self, path: Path, columns: Mapping[str, pl.DataType]) -> None:
        self.path, self.columns, self.rows = path, columns, 0
        self._beside = path.with_name(path.name + ".new")

    def __enter__(self) -> TableWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        schema = pl.DataFrame(schema=self.columns).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
        self._writer = pq.ParquetWriter(self._beside, schema, compression=COMPRESSION, compression_level=LEVEL)
        return self

    def add(self, table: pl.DataFrame) -> None:
        """Write the rows of a table with the writer's columns."""
        self.rows += table.height
        if table.height:
            arrow = table.select(list(self.columns)).to_arrow(compat_level=pl.CompatLevel.oldest())
            self._writer.write_table(arrow.cast(self._writer.schema), row_group_size=ROW_GROUP)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.close()
        if kind is None:
            self._beside.replace(self.path)
        else:
            self._beside.unlink()


def link_texts(folder: Path, files: Iterable[tuple[str, Path]]) -> None:
    """Lay files of texts, each under its name, beside the tables of a folder: the same bytes on disk, not a copy."""
    (folder / TEXTS).mkdir(parents=True, exist_ok=True)
    for name, path in files:
        try:
            (folder / TEXTS / name).hardlink_to(path)
        except OSError:  # another file system, or one without links
            shutil.copyfile(path, folder / TEXTS / name)
