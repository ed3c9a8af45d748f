"""Feedback as it came: immutable batches, one JSONL file each, in one folder a source. Batches are only ever added."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from amopo_core.atomic import replacing
from amopo_core.data.reading import Row
from amopo_core.data.tables import Origin
from amopo_core.errors import UserError

_SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_BATCH = re.compile(r"(?P<number>\d{6,})-(?P<digest>[0-9a-f]{12})")


@dataclass(frozen=True)
class Batch:
    """What one ingestion added."""

    source: str
    name: str
    """Running number in the source and the first 12 hexadecimal digits of the rows' sha256."""
    path: Path
    rows: int


@dataclass(frozen=True)
class StoredRow:
    """A row of a batch."""

    origin: Origin
    fields: Mapping[str, Any]


def append_batch(feedback: Path, source: str, rows: Iterable[Row]) -> Batch | None:
    """The batch that now holds the rows; None where the source already has a batch of the same rows in the same order.

    The format the rows came in does not matter, only their content. The file appears whole or not at all, so an
    interrupted ingestion can be repeated; two ingestions at once take turns.

    Raises:
        UserError: the source's name is none, or what `rows` raises: nothing is stored then.
    """
    if not _SOURCE.fullmatch(source):
        raise UserError(f"source {source!r}: expected letters, digits, `_`, `-` and `.`, the first a letter or digit")
    incoming = list(rows)
    digest = _digest(row.fields for row in incoming)
    folder = feedback / source
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _remove_unfinished(folder)
        stored = [_named(path) for path in batches_of(feedback, source)]
        if digest in (name["digest"] for name in stored):
            return None
        number = max((int(name["number"]) for name in stored), default=0) + 1
        batch = Batch(source, f"{number:06d}-{digest}", folder / f"{number:06d}-{digest}.jsonl", len(incoming))
        _write(batch, incoming)
    return batch


def batches_of(feedback: Path, source: str) -> list[Path]:
    """The batch files of a source, oldest first."""
    found = [path for path in (feedback / source).glob("*.jsonl") if _BATCH.fullmatch(path.stem)]
    return sorted(found, key=lambda path: (int(_named(path)["number"]), path.stem))


def read_batches(feedback: Path, sources: Iterable[str]) -> Iterator[StoredRow]:
    """The stored rows of the named sources, in the order of source, batch and line.

    Raises:
        UserError: a source without a batch, or a batch whose rows are no longer those of its name.
    """
    for source in sorted(sources):
        batches = batches_of(feedback, source)
        if not batches:
            raise UserError(
                f"sources.{source}: there is no feedback in {feedback / source}; ingest one first:"
                f" amopo ingest FILE --source {source}"
            )
        for path in batches:
            yield from _read(path, source)


def undeclared_batches(feedback: Path, sources: Collection[str]) -> dict[str, int]:
    """How many batches each source holds that is not among the named ones."""
    folders = sorted(folder.name for folder in feedback.glob("*") if folder.is_dir() and folder.name not in sources)
    return {name: count for name in folders if (count := len(batches_of(feedback, name)))}


def _remove_unfinished(folder: Path) -> None:
    """Remove what a killed ingestion left beside the batches."""
    for path in folder.glob("*.new"):
        path.unlink()


def _write(batch: Batch, rows: Iterable[Row]) -> None:
    with replacing(batch.path) as file:
        for row in rows:
            stored = {"source": batch.source, "batch": batch.name, "line": row.line, "row": row.fields}
            file.write(json.dumps(stored, ensure_ascii=False, allow_nan=False) + "\n")


def _read(path: Path, source: str) -> Iterable[StoredRow]:
    fields: list[Mapping[str, Any]] = []
    try:
        stored = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
        fields = [entry["row"] for entry in stored]
        origins = [Origin(source, path.stem, entry["line"]) for entry in stored]
    except (ValueError, KeyError, TypeError):
        origins = []
    if not origins or _digest(fields) != _named(path)["digest"]:
        raise UserError(
            f"{path}: its rows are not the ones it was named after; batches are never edited: bring the file back"
            " with `dvc checkout`, or remove it and ingest the corrected rows as a new batch"
        )
    return map(StoredRow, origins, fields)


def _named(path: Path) -> re.Match[str]:
    name = _BATCH.fullmatch(path.stem)
    assert name is not None, path
    return name


def _digest(rows: Iterable[Mapping[str, Any]]) -> str:
    content = sha256()
    for fields in rows:
        content.update(json.dumps(fields, ensure_ascii=False, sort_keys=True, allow_nan=False).encode() + b"\n")
    return content.hexdigest()[:12]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
