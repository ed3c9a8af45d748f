import json
import multiprocessing
import os
import signal
import subprocess
import sys

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amopo_core.data import batches as module
from amopo_core.data.batches import (
    append_batch,
    batches_of,
    came_from,
    canonical,
    chunks_of,
    declared_batches,
    erase_rows,
    last_watermark,
    read_chunk,
    rows_of,
    undeclared_batches,
)
from amopo_core.data.reading import Row, read_rows
from amopo_core.errors import UserError

ROWS = [Row(1, {"prompt": "a", "score": 1}), Row(3, {"prompt": "b", "score": None})]


def stored(batch):
    return [
        (line, row and json.loads(row))
        for chunk in range(chunks_of(batch.path))
        for line, row, _ in read_chunk(batch.path, chunk)
    ]


def test_a_batch_holds_its_rows_as_they_came(tmp_path):
    batch = append_batch(tmp_path, "web", ROWS, file="ratings.jsonl")

    assert batch is not None and batch.rows == 2
    assert batch.path == tmp_path / "web" / f"{batch.name}.parquet"
    assert stored(batch) == [(1, {"prompt": "a", "score": 1}), (3, {"prompt": "b", "score": None})]
    assert (came_from(batch.path), batch.title) == ("ratings.jsonl", f"web/{batch.name}")
    assert list(rows_of(batch.path, [3, 2])) == [(3, {"prompt": "b", "score": None})]


def test_batches_are_numbered_and_read_in_order(tmp_path):
    first = append_batch(tmp_path, "web", ROWS[:1])
    second = append_batch(tmp_path, "web", ROWS[1:])

    assert [batch.name[:7] for batch in (first, second)] == ["000001-", "000002-"]
    assert declared_batches(tmp_path, ["web"]) == [first, second]


def test_chunks_are_stored_as_they_come(tmp_path, monkeypatch):
    """A batch's name does not depend on the size of its chunks."""
    rows = [Row(number, {"n": number}) for number in range(10)]
    whole = append_batch(tmp_path / "whole", "web", rows)
    monkeypatch.setattr(module, "CHUNK", 3)

    batch = append_batch(tmp_path / "parts", "web", iter(rows))

    assert (batch.name, chunks_of(batch.path), stored(batch)) == (whole.name, 4, stored(whole))


def test_the_same_content_adds_nothing_in_any_format(tmp_path):
    """Neither the format, nor the lines, nor the order of the keys is content."""
    (tmp_path / "rows.jsonl").write_text('\n{"response": "b", "prompt": "a"}\n')
    (tmp_path / "rows.csv").write_text("prompt,response\na,b\n")
    pq.write_table(pa.table({"prompt": ["a"], "response": ["b"]}), tmp_path / "rows.parquet")
    feedback = tmp_path / "feedback"

    added = [
        append_batch(feedback, "web", read_rows(tmp_path / f"rows.{kind}")) for kind in ("jsonl", "csv", "parquet")
    ]

    assert [batch is not None for batch in added] == [True, False, False]
    assert append_batch(feedback, "other", read_rows(tmp_path / "rows.csv")) is not None


def test_a_refused_file_stores_nothing(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a": ')

    with pytest.raises(UserError, match="cut off"):
        append_batch(tmp_path / "feedback", "web", read_rows(tmp_path / "rows.jsonl"))

    assert batches_of(tmp_path / "feedback", "web") == []


@pytest.mark.parametrize("name", ["", "..", "../web", "a/b", "/web", ".hidden", "a b", "web\n", "é"])
def test_a_source_cannot_leave_the_folder(tmp_path, name):
    with pytest.raises(UserError, match="expected letters, digits"):
        append_batch(tmp_path / "feedback", name, ROWS)

    assert list(tmp_path.iterdir()) == []


def test_only_the_named_sources_are_read_and_the_others_counted(tmp_path):
    for source in ("b", "a", "left", "left2"):
        append_batch(tmp_path, source, ROWS)
    append_batch(tmp_path, "left", ROWS[:1])

    assert [batch.source for batch in declared_batches(tmp_path, ["b", "a"])] == ["a", "b"]
    assert undeclared_batches(tmp_path, ["a", "b"]) == {"left": 2, "left2": 1}


def test_a_source_that_fetches_may_have_no_batch_yet(tmp_path):
    append_batch(tmp_path, "web", ROWS)

    assert [batch.source for batch in declared_batches(tmp_path, ["traces", "web"], ["traces"])] == ["web"]
    with pytest.raises(UserError, match="no source has any feedback yet"):
        declared_batches(tmp_path, ["traces"], ["traces"])


def test_a_source_without_a_batch_is_told_to_ingest(tmp_path):
    with pytest.raises(UserError, match="amopo ingest FILE --source web"):
        declared_batches(tmp_path, ["web"])


def rewritten(path, **columns):
    table = pq.read_table(path)
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))
    pq.write_table(table, path)


def test_an_edited_row_is_found_when_it_is_read(tmp_path):
    batch = append_batch(tmp_path, "web", ROWS)
    rewritten(batch.path, row=['{"prompt":"a","score":5}', '{"prompt":"b","score":null}'])

    with pytest.raises(UserError, match="batches are never edited"):
        stored(batch)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: rewritten(path, digest=[b"0123456789abcdef"] * 2),
        lambda path: pq.write_table(pq.read_table(path).slice(1), path),
        lambda path: path.write_bytes(path.read_bytes()[:-5]),
        lambda path: path.write_bytes(b""),
        lambda path: pq.write_table(pa.table({"x": [1]}), path),
    ],
)
def test_a_damaged_batch_is_refused(tmp_path, damage):
    batch = append_batch(tmp_path, "web", ROWS)
    damage(batch.path)

    with pytest.raises(UserError, match="batches are never edited"):
        declared_batches(tmp_path, ["web"])


def test_an_erased_row_leaves_its_digest_and_the_batch_true(tmp_path):
    batch = append_batch(tmp_path, "web", ROWS, watermark="prompt", file="f")

    erase_rows(batch.path, {1})

    assert declared_batches(tmp_path, ["web"]) == [batch]
    assert stored(batch) == [(1, None), (3, {"prompt": "b", "score": None})]
    assert list(rows_of(batch.path, [1])) == [(1, None)]
    assert append_batch(tmp_path, "web", ROWS[:1]) is None  # never taken again
    assert append_batch(tmp_path, "web", ROWS[:1], skip_known=True) is None
    assert (came_from(batch.path), last_watermark(tmp_path, "web")) == ("f", "b")


def test_only_rows_that_are_not_known_are_taken_where_asked_for(tmp_path):
    append_batch(tmp_path, "web", ROWS)

    more = append_batch(tmp_path, "web", [*ROWS, Row(9, {"prompt": "new"})], skip_known=True)

    assert stored(more) == [(9, {"prompt": "new"})]
    assert append_batch(tmp_path, "web", ROWS, skip_known=True) is None


def test_the_highest_watermark_of_all_batches_counts(tmp_path):
    assert last_watermark(tmp_path, "web") is None
    for values in ([3, 7], [5], [None]):
        append_batch(tmp_path, "web", [Row(n, {"id": v}) for n, v in enumerate(values)], watermark="id")

    assert last_watermark(tmp_path, "web") == 7


def test_an_erased_row_is_left_out_of_a_growing_export(tmp_path):
    batch = append_batch(tmp_path, "web", ROWS)
    erase_rows(batch.path, {1})

    more = append_batch(tmp_path, "web", [*ROWS, Row(4, {"prompt": "c"})])

    assert stored(more) == [(3, {"prompt": "b", "score": None}), (4, {"prompt": "c"})]


def test_the_watermark_is_kept_as_it_came_whatever_the_redactor_makes_of_it(tmp_path):
    rows = [Row(n, {"id": f"00{n}"}) for n in (1, 3, 2)]

    append_batch(tmp_path, "web", rows, watermark="id", redact=lambda text: "[x]")

    assert last_watermark(tmp_path, "web") == "003"


def test_raters_stay_apart_where_their_names_are_redacted(tmp_path):
    rows = [Row(n, {"by": name, "text": name}) for n, name in enumerate(("a@x.org", "b@x.org", "7"))]

    batch = append_batch(tmp_path, "web", rows, redact=lambda text: "[email]" if "@" in text else text, rater="by")

    raters = [row["by"] for _, row in stored(batch)]
    assert [row["text"] for _, row in stored(batch)] == ["[email]", "[email]", "7"]
    assert len(set(raters)) == 3 and raters[2] == "7" and not any("@" in rater for rater in raters)


def test_chunks_are_cut_by_bytes_too(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 100)

    batch = append_batch(tmp_path, "web", [Row(n, {"text": "x" * 60}) for n in range(5)])

    assert (chunks_of(batch.path), len(stored(batch))) == (3, 5)


def test_texts_are_redacted_before_they_are_stored(tmp_path):
    rows = [Row(1, {"prompt": [{"role": "user", "content": "call 123"}], "score": 123, "123": "123"})]

    batch = append_batch(tmp_path, "web", rows, redact=lambda text: text.replace("123", "[number]"))

    expected = {"prompt": [{"role": "user", "content": "call [number]"}], "score": 123, "123": "[number]"}
    assert stored(batch) == [(1, expected)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(fields=st.dictionaries(st.text(), json_values, max_size=4))
def test_canonical_json_is_the_row_whatever_the_order_of_its_keys(fields):
    encoded, is_plain = canonical(fields)

    assert json.loads(encoded) == fields
    assert not is_plain or orjson.loads(encoded) == fields
    assert canonical(dict(reversed(fields.items()))) == (encoded, is_plain)


def test_a_killed_ingestion_leaves_no_batch_and_can_be_repeated(tmp_path):
    """The rows come from a pipe that stays open: the process is killed while it still reads."""
    pipe = tmp_path / "rows.jsonl"
    os.mkfifo(pipe)
    code = (
        "import sys; from pathlib import Path; from amopo_core.data.batches import append_batch;"
        " from amopo_core.data.reading import read_rows;"
        " append_batch(Path(sys.argv[2]), 'web', read_rows(Path(sys.argv[1])))"
    )
    feedback = tmp_path / "feedback"
    process = subprocess.Popen([sys.executable, "-c", code, pipe, feedback])
    with pipe.open("w") as rows:
        rows.write('{"prompt": "a"}\n')
        rows.flush()
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    (feedback / "web").mkdir(parents=True, exist_ok=True)
    (feedback / "web" / "batch.parquet.new").write_text("PAR1")
    assert batches_of(feedback, "web") == []
    batch = append_batch(feedback, "web", ROWS)
    assert [path.name for path in (feedback / "web").iterdir()] == [batch.path.name]


ROUNDS = 100


def append_in_step(feedback, start):
    try:
        for number in range(ROUNDS):
            start.wait()
            append_batch(feedback, f"round{number}", ROWS)
    except BaseException:
        start.abort()  # or the others would wait for ever
        raise


def test_ingestions_at_once_store_the_same_rows_once(tmp_path):
    """Without turns, two would write the same file beside and one of them would find it gone.

    No process is forked from this one, whose libraries have threads, and none is given up by the wall clock.
    """
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    processes = [context.Process(target=append_in_step, args=(tmp_path, start)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [len(batches_of(tmp_path, f"round{number}")) for number in range(ROUNDS)] == [1] * ROUNDS
