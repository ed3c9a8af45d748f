import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from amopo_core.data.batches import append_batch
from amopo_core.data.reading import Row
from amopo_core.params_file import override
from tasks.dvc_command import FEEDBACK
from tasks.new_feedback import Lookout

TESTS = Path(__file__).parents[2]
BASKET = Path("data/inbox/playground")
FETCH = "{kind: sql, url_env: RATINGS_URL, query: SELECT * FROM ratings, watermark: at}"


@pytest.fixture
def params(tmp_path, monkeypatch):
    """The parameters of the tests in an empty workspace."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((TESTS / "params.yaml").read_text())
    BASKET.mkdir(parents=True)
    return override(Path("params.yaml"), [])


def drop(name, rows):
    (BASKET / name).write_text('{"prompt": "p"}\n' * rows)


def test_a_file_counts_once_it_has_stopped_growing(params):
    lookout = Lookout()
    drop("a.jsonl", 3)
    first = lookout.look(params, ask_sources=True)
    drop("a.jsonl", 5)
    second = lookout.look(params, ask_sources=True)
    third = lookout.look(params, ask_sources=True)

    assert [first.growing, second.growing] == [(), ("data/inbox/playground/a.jsonl",)]
    assert [first.rows, second.rows] == [0, 0]
    assert (third.growing, third.rows) == ((), 5)
    assert third.oldest == (BASKET / "a.jsonl").stat().st_mtime


def test_new_files_hold_nothing_back_and_count_at_the_next_look(params):
    """A stream of them, one a look."""
    lookout, rows = Lookout(), []
    for number in range(4):
        drop(f"{number}.jsonl", 2)
        found = lookout.look(params, ask_sources=True)
        rows.append(found.rows)
        assert found.growing == ()

    assert rows == [0, 2, 4, 6]


def test_the_others_count_while_one_grows(params):
    lookout = Lookout()
    drop("a.jsonl", 3)
    drop("b.jsonl", 1)
    lookout.look(params, ask_sources=True)
    drop("b.jsonl", 2)
    found = lookout.look(params, ask_sources=True)

    assert (found.growing, found.rows) == (("data/inbox/playground/b.jsonl",), 3)
    assert lookout.look(params, ask_sources=True).rows == 5


def test_files_of_undeclared_sources_and_unfinished_ones_do_not_count(params):
    lookout = Lookout()
    other = Path("data/inbox/stranger")
    other.mkdir()
    (other / "a.jsonl").write_text("{}\n")
    drop("a.jsonl.new", 3)
    lookout.look(params, ask_sources=True)

    assert lookout.look(params, ask_sources=True).rows == 0


def test_what_cannot_be_read_is_said_and_counts_as_a_row(params):
    lookout = Lookout()
    (BASKET / "a.jsonl").write_text("{]\n")
    lookout.look(params, ask_sources=True)
    found = lookout.look(params, ask_sources=True)

    assert found.rows == 1
    assert "a.jsonl:1" in found.problems[0]


def test_a_file_outside_a_source_is_said(params):
    Path("data/inbox/a.jsonl").write_text("{}\n")

    assert "whose feedback is it?" in Lookout().look(params, ask_sources=True).problems[0]


def test_the_same_files_are_the_same_picture(params):
    lookout = Lookout()
    drop("a.jsonl", 3)
    pictures = [lookout.look(params, ask_sources=True).picture for _ in range(3)]
    drop("a.jsonl", 4)
    lookout.look(params, ask_sources=True)

    assert pictures[1] == pictures[2]
    assert lookout.look(params, ask_sources=True).picture != pictures[1]


def test_a_database_counts_what_lies_above_the_watermark(params, monkeypatch):
    monkeypatch.setenv("RATINGS_URL", "sqlite:///ratings.db")
    params = override(Path("params.yaml"), [f"sources.playground.fetch={FETCH}"])
    with closing(sqlite3.connect("ratings.db")) as database:
        database.execute("CREATE TABLE ratings (prompt TEXT, at TEXT)")
        database.executemany("INSERT INTO ratings VALUES (?, ?)", [("p", f"2026-01-0{day}") for day in (1, 2, 3, 4)])
        database.commit()
    before = Lookout().look(params, ask_sources=True)
    append_batch(FEEDBACK, "playground", [Row(1, {"at": "2026-01-02"})], watermark="at")
    after = Lookout().look(params, ask_sources=True)

    assert (before.rows, after.rows) == (4, 2)
    assert before.picture != after.picture
    assert after.uncounted == ()
    assert Lookout().look(params, ask_sources=False).rows == 0


@pytest.mark.parametrize(
    ("fetch", "problem"),
    [
        ("{kind: dataset, path: folder}", None),
        ("{kind: mlflow_traces, experiment: chat}", None),
        ("{kind: sql, url_env: RATINGS_URL, query: SELECT 1 AS x}", None),
        (FETCH, "sources.playground.fetch: the environment variable RATINGS_URL is not set"),
    ],
)
def test_a_source_that_cannot_count_is_named(params, fetch, problem):
    found = Lookout().look(override(Path("params.yaml"), [f"sources.playground.fetch={fetch}"]), ask_sources=True)

    assert found.uncounted == ("playground",)
    assert [text.startswith(problem) for text in found.problems] == ([True] if problem else [])
