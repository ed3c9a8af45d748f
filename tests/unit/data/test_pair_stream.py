import shutil

import polars as pl
import pytest

from amopo_core.data import pair_stream
from amopo_core.data.pair_stream import count_pairs, stream_pairs
from amopo_core.data.tables import TEXTS, Pair, read_pairs, write_pairs
from amopo_core.errors import UserError


def pair(number, chosen="a", rejected="b", question="Q"):
    prompt = [{"role": "user", "content": f"{question} {number % 4} é\n"}]
    scores = {"h": float(1 + number % 5), "c": None}, {"h": 3.0, "c": 2.0}
    weight = 0.5 if number % 2 else 1.0
    return Pair(f"{number:016x}", f"{number % 4:016x}", prompt, chosen, rejected, *scores, {"c": 1.5}, weight)


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Several batches of pairs and of texts, texts that many pairs name, and those of another split beside them."""
    monkeypatch.setattr(pair_stream, "ROWS", 7)
    rows = [pair(number, f"good {number % 9}", f"bad {number % 5}") for number in range(40)]
    write_pairs(tmp_path / "test.parquet", [pair(1, "good 3", "none of the others", "Elsewhere")], ["h", "c"])
    write_pairs(tmp_path / "train.parquet", rows, ["h", "c"])
    return tmp_path / "train.parquet"


def test_the_pairs_are_those_of_the_table_in_its_order(table):
    assert list(stream_pairs(table, table.parent / "scratch")) == read_pairs(table)
    assert count_pairs(table) == 40


def test_a_text_that_is_there_twice_is_read_once(table):
    shutil.copy(table.parent / TEXTS / table.name, table.parent / TEXTS / "again.parquet")

    assert list(stream_pairs(table, table.parent / "scratch")) == [*read_pairs(table)]


def test_the_scratch_file_goes_when_the_pairs_end_or_nobody_wants_more(table):
    scratch = table.parent / "made" / "scratch"
    pairs = stream_pairs(table, scratch)

    next(pairs)
    assert scratch.stat().st_size > 0
    pairs.close()
    assert not scratch.exists()
    list(stream_pairs(table, scratch))
    assert not scratch.exists()


def test_an_empty_table_has_no_pairs_and_needs_no_texts(tmp_path):
    write_pairs(tmp_path / "train.parquet", [], ["h"])
    shutil.rmtree(tmp_path / TEXTS)

    assert list(stream_pairs(tmp_path / "train.parquet", tmp_path / "scratch")) == []
    assert count_pairs(tmp_path / "train.parquet") == 0


def test_missing_texts_are_counted_and_leave_nothing(table):
    texts = table.parent / TEXTS / table.name
    pl.read_parquet(texts).filter(pl.col("text") != "good 8").write_parquet(texts)

    with pytest.raises(UserError, match=r"texts lacks 1 texts; remove it and run `dvc repro`"):
        list(stream_pairs(table, table.parent / "scratch"))
    assert not (table.parent / "scratch").exists()


def test_a_table_that_is_missing_or_none_is_named(tmp_path):
    (tmp_path / "none.parquet").write_text("no table")

    with pytest.raises(UserError, match=r"train\.parquet is not here"):
        count_pairs(tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"none\.parquet is not a Parquet table"):
        list(stream_pairs(tmp_path / "none.parquet", tmp_path / "scratch"))
