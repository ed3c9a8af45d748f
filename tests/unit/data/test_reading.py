import csv
import gzip
import json
import os
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amopo_core.data.reading import Row, read_rows
from amopo_core.errors import UserError

NOBODY = 65534


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        list(read_rows(path))
    return str(caught.value)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.ndjson", "ROWS.JSONL"])
def test_jsonl_rows_keep_their_lines_across_blank_ones(tmp_path, name):
    path = written(tmp_path, name, b'\xef\xbb\xbf{"a": 1}\n\n  \n{"a": [1.5, null, true]}')

    assert list(read_rows(path)) == [Row(1, {"a": 1}), Row(4, {"a": [1.5, None, True]})]


def test_csv_rows_begin_at_their_physical_line(tmp_path):
    """The quoted cell of the first row spans lines 2 and 3; line 4 is blank; the second row is on line 5."""
    path = written(tmp_path, "rows.csv", b'prompt,response\r\n"two\nlines",yes\r\n\r\n"a ""b"", c",\r\n')

    assert list(read_rows(path)) == [
        Row(2, {"prompt": "two\nlines", "response": "yes"}),
        Row(5, {"prompt": 'a "b", c', "response": ""}),
    ]


def test_csv_cell_longer_than_the_csv_modules_own_limit(tmp_path):
    long = "x" * 200_000
    path = written(tmp_path, "rows.csv", f"prompt\n{long}\n".encode())

    assert list(read_rows(path)) == [Row(2, {"prompt": long})]


def test_parquet_rows_are_json_values(tmp_path):
    table = pa.table(
        {
            "prompt": [[{"role": "user", "content": "hi"}], None],
            "score": [float("nan"), 2.5],
            "raw": [b"bytes", b""],
            "day": [date(2024, 2, 29), None],
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")

    rows = list(read_rows(tmp_path / "rows.parquet"))

    first = {"prompt": [{"role": "user", "content": "hi"}], "score": "NaN", "raw": "bytes", "day": "2024-02-29"}
    assert rows == [Row(1, first), Row(2, {"prompt": None, "score": 2.5, "raw": "", "day": None})]
    json.dumps([row.fields for row in rows], allow_nan=False)


def test_numbers_that_json_lacks_become_their_names(tmp_path):
    path = written(tmp_path, "rows.jsonl", b'{"a": NaN, "b": Infinity, "c": -Infinity, "d": 1e999, "e": -1e999}\n')

    [row] = read_rows(path)

    assert row.fields == {"a": "NaN", "b": "Infinity", "c": "-Infinity", "d": "Infinity", "e": "-Infinity"}


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.ndjson.gz"])
def test_gzip_is_read_as_what_is_in_it(tmp_path, name):
    assert list(read_rows(written(tmp_path, name, gzip.compress(b'{"a": 1}\n')))) == [Row(1, {"a": 1})]


def test_gzip_csv(tmp_path):
    assert list(read_rows(written(tmp_path, "rows.csv.gz", gzip.compress(b"a\n1\n")))) == [Row(2, {"a": "1"})]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(rows=st.lists(st.dictionaries(st.text(), json_values, max_size=3), min_size=1, max_size=5))
def test_jsonl_gives_back_what_was_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("json") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    assert list(read_rows(path)) == [Row(line, row) for line, row in enumerate(rows, start=1)]


# A carriage return alone ends no line: in a quoted cell it is text, and no file format of ours writes one outside.
cells = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=8)


@given(rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=5))
def test_csv_gives_back_what_was_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("a", "b"), *rows])

    assert [row.fields for row in read_rows(path)] == [{"a": first, "b": second} for first, second in rows]


WHOLE_JSON = b'{"prompt": "a", "response": "b"}\n'


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.jsonl", b"", "holds no rows"),
        ("rows.jsonl", b"\n \n", "holds no rows"),
        ("rows.csv", b"", "holds no rows"),
        ("rows.csv", b"prompt,response\n", "holds no rows"),
        ("rows.jsonl", WHOLE_JSON + WHOLE_JSON[:20], "rows.jsonl:2: the file ends within this row"),
        ("rows.jsonl", b'{"a": 1,}\n{"a": 2}\n', "rows.jsonl:1: not JSON at column 9"),
        ("rows.jsonl", b"[1, 2]\n", "rows.jsonl:1: a JSON list"),
        ("rows.jsonl", b'{"a": 1}\n3\n', "rows.jsonl:2: a JSON int"),
        ("rows.jsonl", b'{"a": 1, "b": {"c": 2, "c": 3}}\n', "rows.jsonl:1: not a row: the key 'c' is there twice"),
        ("rows.jsonl", b'{"a": "\\ud83d"}\n', "rows.jsonl:1: holds half of a surrogate pair"),
        ("rows.jsonl", b'{"a": ' + b"9" * 5000 + b"}\n", "rows.jsonl:1: not a row"),
        ("rows.jsonl", b'{"a": ' + b"[" * 100_000 + b"\n", "rows.jsonl:1: not a row"),
        ("rows.jsonl", WHOLE_JSON + b'{"a": "caf\xe9"}\n', "rows.jsonl:2: byte 43 (0xe9) is not UTF-8"),
        ("rows.csv", '"a"\n"b"\n'.encode("utf-16"), "rows.csv:1: byte 0 (0xff) is not UTF-8"),
        ("rows.csv", b"a,b\n1,2\n3\n", "rows.csv:3: 1 cells where the header has 2"),
        ("rows.csv", b"a,b\n1,2,3\n", "rows.csv:2: 3 cells where the header has 2"),
        ("rows.csv", b"a,b,a\n1,2,3\n", "rows.csv:1: two columns are named 'a'"),
        ("rows.csv", b'a,b\n1,2\n3,"cut\noff', "rows.csv:3: not CSV"),
        ("rows.jsonl.gz", gzip.compress(WHOLE_JSON * 99)[:-30], "gzip data is damaged or cut off"),
        ("rows.jsonl.gz", WHOLE_JSON, "gzip data is damaged or cut off"),
        ("rows.csv.gz", gzip.compress(b"a\n1\n")[:-8] + b"\0" * 8, "gzip data is damaged or cut off"),
        ("rows.parquet", b"PAR1 and no more", "not a whole Parquet file"),
        ("rows.parquet", b"", "not a whole Parquet file"),
        ("rows.txt", WHOLE_JSON, "the suffix says no known format"),
        ("rows.parquet.gz", gzip.compress(b"PAR1"), "the suffix says no known format"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(tmp_path, name, content, said):
    message = refusal(written(tmp_path, name, content))

    assert str(tmp_path / name) in message
    assert said in message


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()

    assert "is not here" in refusal(tmp_path / "none.jsonl")
    assert "is a folder" in refusal(tmp_path / "folder.jsonl")


def test_an_unreadable_file_is_refused(tmp_path):
    path = written(tmp_path, "rows.jsonl", WHOLE_JSON)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        assert "cannot be read: Permission denied" in refusal(path)
    finally:
        os.seteuid(user)


def parquet(path: Path, rows: int) -> bytes:
    pq.write_table(pa.table({"prompt": [f"prompt {number}" * 9 for number in range(rows)]}), path)
    return path.read_bytes()


def test_a_parquet_file_without_rows_or_cut_off_is_refused(tmp_path):
    path = tmp_path / "rows.parquet"
    parquet(path, rows=0)
    assert "holds no rows" in refusal(path)

    path.write_bytes(parquet(path, rows=100)[:-20])
    assert "not a whole Parquet file" in refusal(path)


def test_a_parquet_file_with_two_columns_of_a_name_is_refused(tmp_path):
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(table, tmp_path / "rows.parquet")

    assert "two columns are named 'a'" in refusal(tmp_path / "rows.parquet")


@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_but_never_a_traceback(tmp_path_factory, data):
    """Whatever bytes replace a part of a good file, the only error is a UserError."""
    folder = tmp_path_factory.mktemp("damaged")
    suffix = data.draw(st.sampled_from(["jsonl", "csv", "parquet", "jsonl.gz"]))
    good = {"jsonl": WHOLE_JSON * 3, "csv": b'a,b\n"1\n2",3\n', "jsonl.gz": gzip.compress(WHOLE_JSON * 3, mtime=0)}
    content = parquet(folder / "good.parquet", rows=5) if suffix == "parquet" else good[suffix]
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, len(content)))
    path = written(folder, f"rows.{suffix}", content[:start] + data.draw(st.binary(max_size=4)) + content[end:])

    try:
        assert all(isinstance(row.fields, dict) for row in read_rows(path))
    except UserError as error:
        assert str(path) in str(error)
