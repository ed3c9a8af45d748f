"""The pairs of a split one after the other, in memory that does not grow with them.

Pairs name their texts by id, and a text may stand anywhere. So the texts that a split needs are first copied into one
file that is mapped into memory, beside a sorted list of their ids (16 bytes a text).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from amopo_core.data.tables import GAP, TEXTS, Pair, pair_of, scan
from amopo_core.errors import UserError

ROWS = 5_000
"""Pairs, or texts, that are held at once."""

_IDS = ("prompt_id", "chosen_id", "rejected_id")


def count_pairs(path: Path) -> int:
    """How many pairs a split has.

    Raises:
        UserError: the table is missing or none.
    """
    return int(scan(path).select(pl.len()).collect().item())


def stream_pairs(path: Path, scratch: Path) -> Iterator[Pair]:
    """The pairs of a split in their order.

    Args:
        path: the split's table, its texts beside it.
        scratch: a file that may be written meanwhile; about as large as the texts.

    Raises:
        UserError: the table is missing or none, or lacks texts.
    """
    if not count_pairs(path):
        return
    try:
        texts = _MappedTexts(path.parent, _needed(path), scratch)
        for batch in pq.ParquetFile(path).iter_batches(ROWS):
            names = [name.removeprefix(GAP) for name in batch.schema.names if name.startswith(GAP)]
            found = {name: texts.of(batch.column(name).to_numpy()) for name in _IDS}
            prompts = map(json.loads, found["prompt_id"])
            rows = zip(batch.to_pylist(), prompts, found["chosen_id"], found["rejected_id"], strict=True)
            for row, prompt, chosen, rejected in rows:
                yield pair_of(row, names, prompt, chosen, rejected)
    finally:
        scratch.unlink(missing_ok=True)


def _needed(path: Path) -> NDArray[np.uint64]:
    """The ids of a split's texts, sorted."""
    ids = [np.unique(batch.column(name).to_numpy()) for batch in pq.ParquetFile(path).iter_batches() for name in _IDS]
    return np.unique(np.concatenate(ids))


class _MappedTexts:
    """Texts by their id, on disk."""

    def __init__(self, folder: Path, needed: NDArray[np.uint64], scratch: Path) -> None:
        self._ids = needed
        self._batch_of = np.full(len(needed), -1, dtype=np.int32)
        self._row_of = np.zeros(len(needed), dtype=np.int32)
        scratch.parent.mkdir(parents=True, exist_ok=True)
        self._copy(sorted((folder / TEXTS).glob("*.parquet")), scratch)
        if missing := int((self._batch_of < 0).sum()):
            raise UserError(f"{folder / TEXTS} lacks {missing} texts; remove it and run `dvc repro`")
        self._file = pa.ipc.open_file(pa.memory_map(str(scratch)))

    def of(self, ids: NDArray[np.uint64]) -> list[str]:
        """The texts of the ids."""
        places = np.searchsorted(self._ids, ids)
        return [
            self._file.get_batch(batch).column(0)[row].as_py()
            for batch, row in zip(self._batch_of[places].tolist(), self._row_of[places].tolist(), strict=True)
        ]

    def _copy(self, files: Sequence[Path], scratch: Path) -> None:
        schema, number = pa.schema([("text", pa.large_string())]), 0
        with pa.OSFile(str(scratch), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for file in files:
                for batch in pq.ParquetFile(file).iter_batches(ROWS, columns=["id", "text"]):
                    wanted = self._wanted(batch.column("id").to_numpy())
                    places = np.searchsorted(self._ids, batch.column("id").to_numpy()[wanted])
                    self._batch_of[places], self._row_of[places] = number, np.arange(len(places))
                    text = batch.column("text").take(pa.array(wanted)).cast(pa.large_string())
                    writer.write_batch(pa.record_batch([text], schema=schema))
                    number += 1

    def _wanted(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Rows of the texts that are needed and not there yet."""
        places = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        new = (self._ids[places] == ids) & (self._batch_of[places] < 0)
        first = np.zeros(len(ids), dtype=bool)
        first[np.unique(ids, return_index=True)[1]] = True
        return np.flatnonzero(new & first)
