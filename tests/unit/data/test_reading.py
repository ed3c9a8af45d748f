import csv
import gzip
import io
import json
import os
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from amopo_core.data import reading
from amopo_core.data.reading import Row, read_files, read_rows
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


PACKINGS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}


def in_every_format() -> dict[str, bytes]:
    """The row {"a": "1", "b": "x"} in every format."""
    table = io.BytesIO()
    pq.write_table(pa.table({"a": ["1"], "b": ["x"]}), table)
    line = b'{"a": "1", "b": "x"}\n'
    return {
        ".jsonl": line,
        ".ndjson": line,
        ".json": b"[" + line + b"]",
        ".csv": b"a,b\n1,x\n",
        ".parquet": table.getvalue(),
    }


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("suffix", in_every_format())
def test_every_format_is_read_plain_and_packed(tmp_path, suffix, packing):
    path = written(tmp_path, f"rows{suffix}{packing}", PACKINGS[packing](in_every_format()[suffix]))

    assert [row.fields for row in read_rows(path)] == [{"a": "1", "b": "x"}]


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_packed_data_may_be_of_several_pieces(tmp_path, packing):
    """As `cat a.gz b.gz` makes it."""
    path = written(
        tmp_path, f"rows.jsonl{packing}", PACKINGS[packing](b'{"a": 1}\n') + PACKINGS[packing](b'{"a": 2}\n')
    )

    assert list(read_rows(path)) == [Row(1, {"a": 1}), Row(2, {"a": 2})]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('[{"a": 1},\n {"a": 2}]', [{"a": 1}, {"a": 2}]),
        ('\ufeff{"a": [{"b": 1}], "c": 2}', [{"a": [{"b": 1}], "c": 2}]),
        ('{"anything": [{"a": 1}, {"a": 2}]}', [{"a": 1}, {"a": 2}]),
        ('{"version": 1, "data": [{"a": 1}]}', [{"a": 1}]),
        ('{"data": {"a": 1}, "annotations": [{"b": 2}]}', [{"data": {"a": 1}, "annotations": [{"b": 2}]}]),
        ('{"a": 1}\n\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        ('[{"a": NaN, "b": 18446744073709551617}]', [{"a": "NaN", "b": 18446744073709551617}]),
    ],
)
def test_json_documents_hold_rows_in_several_ways(tmp_path, content, rows):
    assert [row.fields for row in read_rows(written(tmp_path, "rows.json", content.encode()))] == rows


def test_rows_of_a_json_list_are_numbered(tmp_path):
    path = written(tmp_path, "rows.json", b'[{"a": 1},\n\n{"a": 2}]')

    assert [row.line for row in read_rows(path)] == [1, 2]


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**30 + 1, 1e22, 0.1])
def test_no_digit_of_a_number_is_lost(tmp_path, number):
    path = written(tmp_path, "rows.jsonl", json.dumps({"a": [number]}).encode())

    assert list(read_rows(path)) == [Row(1, {"a": [number]})]


@pytest.mark.parametrize("text", ['a ":" b', '{"a": 1}', 'he said "so" : yes', "\\"])
def test_texts_that_look_like_keys_are_texts(tmp_path, text):
    path = written(tmp_path, "rows.jsonl", json.dumps({"a": text}).encode())

    assert list(read_rows(path)) == [Row(1, {"a": text})]


def test_a_folder_is_its_feedback_files_by_name(tmp_path):
    for name in ["b.jsonl", "a/z.csv", "a/b.json.gz", ".hidden.jsonl", ".git/x.jsonl", "README.txt", "LICENSE", "x.md"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    assert [file.relative_to(tmp_path).as_posix() for file in read_files(tmp_path)] == [
        "a/b.json.gz",
        "a/z.csv",
        "b.jsonl",
    ]
    assert list(read_files(tmp_path / "x.md")) == [tmp_path / "x.md"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a.jsonl", "notes.txt", "deep/b.xlsx"], "holds files of no known format: deep/b.xlsx, notes.txt; expected"),
        ([f"{number}.txt" for number in range(7)], "0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 2 more"),
        (["README.md"], "holds no feedback file"),
        ([], "holds no feedback file"),
    ],
)
def test_a_folder_with_other_files_or_none_is_refused(tmp_path, names, said):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    with pytest.raises(UserError, match=said):
        list(read_files(tmp_path))


def test_a_path_that_is_not_there_is_refused_as_a_folder_too(tmp_path):
    with pytest.raises(UserError, match="is not here"):
        list(read_files(tmp_path / "none"))


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_line_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch, suffix, packing):
    monkeypatch.setattr(reading, "MAX_LINE", 1000)
    fits, long = {".jsonl": ('{"a": "x"}', '{"a": "%s"}'), ".csv": ("a,b", '"%s",1')}[suffix]
    path = written(tmp_path, f"rows{suffix}{packing}", PACKINGS[packing](f"{fits}\n{long % ('x' * 1000)}\n".encode()))

    assert "2: the line is longer than 1,000 bytes" in refusal(path)


def test_a_cell_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    """It spans many short lines."""
    monkeypatch.setattr(reading, "MAX_LINE", 1000)
    path = written(tmp_path, "rows.csv", b'a\n"' + b"x\n" * 1000 + b'"\n')

    assert "rows.csv:2: not CSV: field larger than field limit" in refusal(path)


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_document_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch, packing):
    monkeypatch.setattr(reading, "MAX_DOCUMENT", 1000)
    path = written(tmp_path, f"rows.json{packing}", PACKINGS[packing](b"[" + b" " * 1000 + b"{}]"))

    assert "is larger than 1,000 bytes" in refusal(path)


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
        ("rows.jsonl", b'{"a": "b\tc"}\n', "not JSON at column 9: Invalid control character; expected one"),
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
        ("rows.jsonl.gz", gzip.compress(WHOLE_JSON * 99, mtime=0)[:-30], "gzip data is damaged or cut off"),
        ("rows.jsonl.gz", WHOLE_JSON, "is not compressed, though its suffix says .gz; name it rows.jsonl, or"),
        ("rows.csv.gz", gzip.compress(b"a\n1\n", mtime=0)[:-8] + b"\0" * 8, "gzip data is damaged or cut off"),
        ("rows.parquet", b"PAR1 and no more", "not a whole Parquet file"),
        ("rows.parquet", b"", "not a whole Parquet file"),
        ("rows.txt", WHOLE_JSON, "the suffix says no known format"),
        ("rows.txt.gz", gzip.compress(WHOLE_JSON, mtime=0), "the suffix says no known format"),
        ("rows.parquet.gz", gzip.compress(b"PAR1", mtime=0), "not a whole Parquet file"),
        ("rows.parquet.gz", gzip.compress(b"PAR1", mtime=0)[:-4], "gzip data is damaged or cut off"),
        ("rows.jsonl.zst", zstandard.compress(WHOLE_JSON)[:-3], "zstd data is damaged or cut off"),
        ("rows.json.zst", WHOLE_JSON, "is not compressed, though its suffix says .zst"),
        ("rows.parquet.zst", WHOLE_JSON, "is not compressed, though its suffix says .zst"),
        ("rows.json.zst", zstandard.compress(WHOLE_JSON)[:5] + b"\xff" * 9, "zstd data is damaged or cut off"),
        (
            "rows.csv",
            b"prompt;response;help\na;b;1\n",
            "rows.csv:1: the cells are separated by semicolons; expected commas",
        ),
        ("rows.csv", b"prompt\tresponse\na\tb\n", "separated by tabs; expected commas"),
        ("rows.jsonl", b'{"a" : 1, "a": 2}\n', "rows.jsonl:1: not a row: the key 'a' is there twice"),
        ("rows.jsonl", b'{"a": "x\\":", "b": {"c\\u0061": 1, "ca": 2}}\n', "the key 'ca' is there twice"),
        ("rows.jsonl", b'{"a": ' + b"[" * 101 + b"]" * 101 + b"}\n", "nested more than 100 deep"),
        ("rows.json", b"", "holds no rows"),
        ("rows.json", b"[]", "holds no rows"),
        ("rows.json", b'[{"a": 1}, 2]', "row 2 is a JSON int; expected a list of objects"),
        ("rows.json", b'"a"', "row 1 is a JSON str"),
        ("rows.json", b'[{"a": 1},\n{"a": 2}', "rows.json:2: not JSON at column 9"),
        ("rows.json", b'[{"a": 1, "a": 2}]', "the key 'a' is there twice"),
        ("rows.json", b'["\xe9"]', "byte 2 (0xe9) is not UTF-8"),
        ("rows.json", b'["\\ud83d"]', "half of a surrogate pair"),
        ("rows.json", b'{"a": 1}\n{"a": 1,}\n', "rows.json:2: not JSON"),
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


@contextmanager
def as_nobody():
    """As a user who is not root, for root may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def test_an_unreadable_file_is_refused(tmp_path):
    path = written(tmp_path, "rows.jsonl", WHOLE_JSON)
    path.chmod(0)

    with as_nobody():
        assert "cannot be read: Permission denied" in refusal(path)


@pytest.mark.parametrize("hidden", ["deep", "."])
def test_a_folder_that_cannot_be_looked_into_is_refused_not_passed_over(tmp_path, hidden):
    (tmp_path / "top/deep").mkdir(parents=True)
    written(tmp_path / "top", "rows.jsonl", WHOLE_JSON)
    folder = tmp_path / "top" / hidden
    folder.chmod(0)

    try:
        with as_nobody(), pytest.raises(UserError, match="cannot be read: Permission denied"):
            list(read_files(tmp_path / "top"))
    finally:
        folder.chmod(0o700)


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
    """Whatever bytes replace a part of a good file, the only error is a UserError that names the file."""
    suffix = data.draw(st.sampled_from(list(in_every_format())))
    packing = data.draw(st.sampled_from(list(PACKINGS)))
    content = PACKINGS[packing](in_every_format()[suffix] * (1 if suffix in (".parquet", ".json") else 3))
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, len(content)))
    damaged = content[:start] + data.draw(st.binary(max_size=4)) + content[end:]

    refused_or_read(written(tmp_path_factory.mktemp("damaged"), f"rows{suffix}{packing}", damaged))


@given(
    content=st.binary(max_size=60) | st.text('[]{}":,\\0123eE+-.untrufalsNI\n \tbé', max_size=60).map(str.encode),
    suffix=st.sampled_from([suffix + packing for suffix in in_every_format() for packing in PACKINGS]),
)
def test_any_bytes_are_refused_or_read_but_never_a_traceback(tmp_path_factory, content, suffix):
    refused_or_read(written(tmp_path_factory.mktemp("any"), f"rows{suffix}", content))


def refused_or_read(path: Path) -> None:
    try:
        for row in read_rows(path):
            assert isinstance(row.fields, dict)
            json.dumps(row.fields, allow_nan=False, ensure_ascii=False).encode()
    except UserError as error:
        assert str(path) in str(error)


@given(text=st.text('{}":,\\ab01 \t', max_size=30).map(lambda inner: "{" + inner + "}"))
def test_the_fast_decoder_says_what_the_exact_one_says(text):
    value = reading._certain(text.encode())

    assert value is None or value == reading._exact(text)
