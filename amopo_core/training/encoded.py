"""Encoded pairs on disk: written once a run, read by every rank, in memory that does not grow with them."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path
from typing import TextIO, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from amopo_core.atomic import replacing, write_json
from amopo_core.chat import ChatEncoder
from amopo_core.config import Params
from amopo_core.data.pair_stream import count_pairs, stream_pairs
from amopo_core.data.tables import Pair
from amopo_core.engine.batches import sequences_of
from amopo_core.engine.tree import packed_tokens
from amopo_core.policy import load_tokenizer
from amopo_core.training.encoding import DroppedPair, EncodedPair, PairEncoder

CHUNK = 500
"""Pairs that are encoded and written at once."""

WORTH_A_PROCESS = 20_000
"""Pairs for which starting another process pays."""

SECONDS_A_LINE = 10
"""Between two lines of progress."""

_Item = TypeVar("_Item")

_INACTIVE = -1
"""Stands for the length of a view's prompt that is not there."""

_SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("tokens", pa.large_list(pa.int32())),  # the views' prompts, the plain prompt, chosen, rejected: end to end
        ("lengths", pa.list_(pa.int32())),
        ("swapped", pa.list_(pa.bool_())),
        ("truncated", pa.int32()),
        ("weight", pa.float64()),
        ("packed_tokens", pa.int64()),
        ("separate_tokens", pa.int64()),
    ]
)


@dataclass
class Encoding:
    """What came of the pairs of a split."""

    pairs: int = 0
    """Those that can be trained on."""
    truncated: int = 0
    """Those of them whose prompt was shortened."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Those that cannot, by reason."""
    weight: float = 0.0
    """Sum of the pairs' weights."""
    views: int = 0
    """Active views, over all pairs."""
    shortest_too_long: int = 0
    """Tokens that the shortest pair needs which did not fit; 0: all did."""


class EncodedPairs:
    """The encoded pairs of a split by their place; the file stays on the disk."""

    def __init__(self, path: Path) -> None:
        self._file = pa.ipc.open_file(pa.memory_map(str(path)))
        columns: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
        for number in range(self._file.num_record_batches):
            batch = self._file.get_batch(number)
            for column, name in zip(columns, ("packed_tokens", "separate_tokens"), strict=True):
                column.append(batch.column(name).to_numpy().copy())
        empty = np.zeros(0, dtype=np.int64)
        self.packed_tokens, self.separate_tokens = (np.concatenate([empty, *column]) for column in columns)

    def __len__(self) -> int:
        return len(self.packed_tokens)

    def __getitem__(self, index: int) -> EncodedPair:
        batch = self._file.get_batch(index // CHUNK)
        row = index % CHUNK
        tokens: list[int] = batch.column("tokens")[row].values.to_numpy().tolist()
        pieces: list[list[int] | None] = []
        start = 0
        for length in batch.column("lengths")[row].values.to_numpy().tolist():
            pieces.append(None if length == _INACTIVE else tokens[start : start + length])
            start += max(length, 0)
        *prompts, plain, chosen, rejected = pieces
        assert plain is not None and chosen is not None and rejected is not None
        return EncodedPair(
            pair_id=batch.column("pair_id")[row].as_py(),
            prompts=tuple(prompts),
            swapped=tuple(batch.column("swapped")[row].as_py()),
            plain_prompt=plain,
            chosen=chosen,
            rejected=rejected,
            truncated=batch.column("truncated")[row].as_py(),
            weight=batch.column("weight")[row].as_py(),
        )


def encode_split(params: Params, table: Path, base: Path, max_length: int, path: Path) -> None:
    """Encode the pairs of a table into `path`, with what came of them and those dropped beside it.

    Args:
        params: of the run.
        table: a split of `pairs`.
        base: folder of the policy whose tokenizer and template encode.
        max_length: tokens of a sequence at most.
        path: appears whole or not at all, and last.
    """
    found, beside = Encoding(), path.with_name(path.name + ".new")
    path.parent.mkdir(parents=True, exist_ok=True)
    total, pairs = count_pairs(table), stream_pairs(table, path.with_name(path.name + ".texts"))
    results = _said(_encode_all(params, base, max_length, pairs, total), total)
    with replacing(dropped_path(path)) as dropped:
        write_encoded(beside, _kept(results, found, dropped), params)
    write_json(summary_path(path), asdict(found))
    beside.replace(path)


def write_encoded(path: Path, pairs: Iterable[EncodedPair], params: Params) -> None:
    """Write a file for `EncodedPairs`, a few pairs at a time."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        for chunk in _chunks(pairs):
            writer.write_batch(_record_batch(chunk, params))


def dropped_path(path: Path) -> Path:
    """Where the pairs that cannot be trained on are listed, beside those that can."""
    return path.with_suffix(".dropped.jsonl")


def summary_path(path: Path) -> Path:
    """Where it is said what came of the pairs."""
    return path.with_suffix(".json")


def read_encoding(path: Path) -> Encoding:
    """What came of the pairs that were encoded into `path`."""
    return Encoding(**json.loads(summary_path(path).read_text(encoding="utf-8")))


def _kept(results: Iterable[EncodedPair | DroppedPair], found: Encoding, dropped: TextIO) -> Iterator[EncodedPair]:
    """The pairs that can be trained on; all are counted, and the others listed."""
    for result in results:
        if isinstance(result, DroppedPair):
            dropped.write(json.dumps({"pair_id": result.pair_id, "reason": result.reason}) + "\n")
            found.dropped = dict(sorted((Counter(found.dropped) + Counter([result.reason])).items()))
            if result.needs:
                found.shortest_too_long = min(result.needs, found.shortest_too_long or result.needs)
            continue
        found.pairs += 1
        found.truncated += result.truncated > 0
        found.weight += result.weight
        found.views += sum(prompt is not None for prompt in result.prompts)
        yield result


def _said(results: Iterable[_Item], total: int) -> Iterator[_Item]:
    """The same, while it is said how far they are."""
    said = time.monotonic()
    for done, result in enumerate(results, start=1):
        if time.monotonic() - said > SECONDS_A_LINE:
            said = time.monotonic()
            sys.stderr.write(f"train: encoded {done:,} of {total:,} pairs\n")
        yield result


def _record_batch(pairs: Sequence[EncodedPair], params: Params) -> pa.RecordBatch:
    plain = params.objective.supervised_weight > 0 and not params.views.generic
    sequences = [sequences_of(pair, plain=plain) for pair in pairs]
    pieces = [[*pair.prompts, pair.plain_prompt, pair.chosen, pair.rejected] for pair in pairs]
    columns = {
        "pair_id": [pair.pair_id for pair in pairs],
        "tokens": [np.fromiter(chain.from_iterable(filter(None, row)), dtype=np.int32) for row in pieces],
        "lengths": [[_INACTIVE if piece is None else len(piece) for piece in row] for row in pieces],
        "swapped": [list(pair.swapped) for pair in pairs],
        "truncated": [pair.truncated for pair in pairs],
        "weight": [pair.weight for pair in pairs],
        "packed_tokens": [packed_tokens(each) for each in sequences],
        "separate_tokens": [len(each) * max(map(len, each)) for each in sequences],
    }
    return pa.record_batch(columns, schema=_SCHEMA)


def _encode_all(
    params: Params, base: Path, max_length: int, pairs: Iterator[Pair], total: int
) -> Iterator[EncodedPair | DroppedPair]:
    """The pairs encoded, in their order, by several processes where they are many."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    workers = min(cores, total // WORTH_A_PROCESS)
    if workers < 2:
        yield from _encoder(params, base, max_length).encode(pairs)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(params, base, max_length)) as pool:
        waiting: deque[Future[list[EncodedPair | DroppedPair]]] = deque()
        for chunk in _chunks(pairs):
            waiting.append(pool.submit(_encode_chunk, chunk))
            if len(waiting) > 2 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _chunks(pairs: Iterable[_Item]) -> Iterator[list[_Item]]:
    iterator = iter(pairs)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


def _encoder(params: Params, base: Path, max_length: int) -> PairEncoder:
    encoder = ChatEncoder(load_tokenizer(base), params.views.instruction_at)
    return PairEncoder(encoder, params.dimensions, params.views, max_length)


_worker_encoder: PairEncoder | None = None


def _begin(params: Params, base: Path, max_length: int) -> None:
    """A worker's start: it ends with its parent."""
    from amopo_core.stages.command import die_with_parent

    global _worker_encoder  # noqa: PLW0603 (a process of its own)
    die_with_parent()
    logging.getLogger("amopo_core").setLevel(logging.ERROR)  # its parent has said it
    _worker_encoder = _encoder(params, base, max_length)


def _encode_chunk(pairs: Sequence[Pair]) -> list[EncodedPair | DroppedPair]:
    assert _worker_encoder is not None
    return list(_worker_encoder.encode(pairs))
