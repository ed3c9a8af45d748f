import json
import multiprocessing
import os
import signal
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amopo_core.data.batches import append_batch, batches_of, read_batches, undeclared_batches
from amopo_core.data.reading import Row, read_rows
from amopo_core.errors import UserError

ROWS = [Row(1, {"prompt": "a", "score": 1}), Row(3, {"prompt": "b", "score": None})]


def test_a_batch_holds_its_rows_as_they_came(tmp_path):
    batch = append_batch(tmp_path, "web", ROWS)

    assert batch is not None and batch.rows == 2
    assert batch.path == tmp_path / "web" / f"{batch.name}.jsonl"
    assert [json.loads(line) for line in batch.path.read_text().splitlines()] == [
        {"source": "web", "batch": batch.name, "line": 1, "row": {"prompt": "a", "score": 1}},
        {"source": "web", "batch": batch.name, "line": 3, "row": {"prompt": "b", "score": None}},
    ]


def test_batches_are_numbered_and_read_in_order(tmp_path):
    first = append_batch(tmp_path, "web", ROWS[:1])
    second = append_batch(tmp_path, "web", ROWS[1:])

    assert [batch.name[:7] for batch in (first, second)] == ["000001-", "000002-"]
    stored = list(read_batches(tmp_path, ["web"]))
    assert [(row.origin.batch, row.origin.line, row.fields["prompt"]) for row in stored] == [
        (first.name, 1, "a"),
        (second.name, 3, "b"),
    ]


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

    assert not (tmp_path / "feedback").exists()


@pytest.mark.parametrize("name", ["", "..", "../web", "a/b", "/web", ".hidden", "a b", "web\n", "é"])
def test_a_source_cannot_leave_the_folder(tmp_path, name):
    with pytest.raises(UserError, match="expected letters, digits"):
        append_batch(tmp_path / "feedback", name, ROWS)

    assert list(tmp_path.iterdir()) == []


def test_only_the_named_sources_are_read_and_the_others_counted(tmp_path):
    for source in ("b", "a", "left", "left2"):
        append_batch(tmp_path, source, ROWS)
    append_batch(tmp_path, "left", ROWS[:1])

    assert [row.origin.source for row in read_batches(tmp_path, ["b", "a"])] == ["a", "a", "b", "b"]
    assert undeclared_batches(tmp_path, ["a", "b"]) == {"left": 2, "left2": 1}


def test_a_source_without_a_batch_is_told_to_ingest(tmp_path):
    with pytest.raises(UserError, match="amopo ingest FILE --source web"):
        list(read_batches(tmp_path, ["web"]))


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace('"score": 1', '"score": 5'),
        lambda text: text.splitlines(keepends=True)[0],
        lambda text: text[:-5],
        lambda text: text + "\n",
        lambda text: "",
    ],
)
def test_an_edited_batch_is_refused(tmp_path, edit):
    batch = append_batch(tmp_path, "web", ROWS)
    batch.path.write_text(edit(batch.path.read_text()))

    with pytest.raises(UserError, match="batches are never edited"):
        list(read_batches(tmp_path, ["web"]))


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

    (feedback / "web").mkdir(parents=True)
    (feedback / "web" / "000001-0123456789ab.jsonl.new").write_text('{"source": "web", "ba')
    assert batches_of(feedback, "web") == []
    batch = append_batch(feedback, "web", ROWS)
    assert [path.name for path in (feedback / "web").iterdir()] == [batch.path.name]


ROUNDS = 300


def append_in_step(feedback, start):
    for number in range(ROUNDS):
        start.wait()
        append_batch(feedback, f"round{number}", ROWS)


def test_ingestions_at_once_store_the_same_rows_once(tmp_path):
    """Without turns, two would write the same file beside and one of them would find it gone."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(3, timeout=20)
    processes = [context.Process(target=append_in_step, args=(tmp_path, start)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [len(batches_of(tmp_path, f"round{number}")) for number in range(ROUNDS)] == [1] * ROUNDS
