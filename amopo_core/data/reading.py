"""Feedback files into rows: JSONL, JSON, CSV and Parquet, streamed; any damage is an error that names file and line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import re
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from io import FileIO
from pathlib import Path, PurePath
from typing import Any, BinaryIO, NamedTuple, NoReturn, cast

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from amopo_core.errors import UserError, located

MAX_LINE = 256 * 2**20
"""Bytes of a line, and characters of a CSV cell, at most: a packed bomb would fill the memory with one."""

MAX_DOCUMENT = 2 * 2**30
"""Bytes of a .json file, unpacked, at most: it is the one format that is held in memory as a whole."""

MAX_DEPTH = 100
"""Objects and lists within each other at most: Python's own functions on nested values recurse."""

BUFFER = 2**20

WRAPPERS = ("rows", "data", "records", "examples", "instances", "items")
"""Names under which an export keeps its list of rows beside other keys."""

UNCOUNTED = re.compile(r"README|LICENSE|LICENCE|.*\.md$", flags=re.IGNORECASE)
"""Names in a folder of feedback that hold no feedback."""


class Row(NamedTuple):
    """A row of a feedback file as it came."""

    line: int
    """1-based line on which the row begins; in Parquet and in a JSON list, where it has none, the number of the row."""
    fields: dict[str, Any]
    """JSON values. NaN and infinities, which JSON lacks, are the texts `NaN`, `Infinity`, `-Infinity`."""


def read_files(path: Path) -> Iterator[Path]:
    """The feedback files of a folder and of the folders in it, sorted by their path; a file is its own only one.

    Hidden files, README, LICENSE and Markdown files are passed over.

    Raises:
        UserError: the path is missing, the folder holds no feedback file, or it holds one of unknown format.
    """
    try:
        if not path.exists():
            raise UserError(f"{path} is not here; check the path")
        files = _below(path) if path.is_dir() else [path]
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}; check its permissions") from None
    yield from files


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, by its suffix: .jsonl, .ndjson, .json, .csv or .parquet, each also with .gz or .zst.

    Memory is bounded by the longest row, but for .json, which is held as a whole: up to 2 GB. Its rows are a list of
    objects, one object, or the list under the only key of an object or under one of `WRAPPERS`; lines of JSON under
    this name are read as such.

    Raises:
        UserError: the file is missing, unreadable, empty, cut off, damaged, not UTF-8, not what its suffix says, or
            has a line above 256 MB.
    """
    read = _format(path)
    if read is None:
        raise UserError(f"{path}: the suffix says no known format; expected {EXPECTED}")
    empty = True
    try:
        for row in read(path):
            empty = False
            yield row
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"{path}: the gzip data is damaged or cut off ({error}); send the complete file again"
        ) from None
    except FileNotFoundError:
        raise UserError(f"{path} is not here; check the path") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name one file in it") from None
    except OSError as error:
        if error.errno is None:  # Arrow's, of the zstd data
            said = f"the zstd data is damaged or cut off ({error}); send the complete file again"
            raise UserError(f"{path}: {said}") from None
        raise UserError(f"{path} cannot be read: {error.strerror}; check its permissions and its disk") from None
    if empty:
        raise UserError(f"{path} holds no rows; expected at least one")


def _below(folder: Path) -> list[Path]:
    """The feedback files below a folder, sorted.

    Raises:
        OSError: a folder in it cannot be looked into; `Path.rglob` would pass over it.
        UserError: it holds none, or one of unknown format.
    """
    below = (Path(place, name) for place, _, names in os.walk(folder, onerror=_raise) for name in names)
    files = sorted(file for file in below if _counts(file.relative_to(folder)))
    if strange := [str(file.relative_to(folder)) for file in files if _format(file) is None]:
        shown = ", ".join(strange[:5]) + (f" and {len(strange) - 5} more" if len(strange) > 5 else "")
        raise UserError(f"{folder} holds files of no known format: {shown}; expected {EXPECTED}; move the others away")
    if not files:
        raise UserError(f"{folder} holds no feedback file; expected {EXPECTED}")
    return files


def _raise(error: OSError) -> NoReturn:
    raise error


def _counts(path: PurePath) -> bool:
    """Whether a path within a folder may be feedback: neither it nor a folder above it is hidden or documentation."""
    return not (UNCOUNTED.match(path.name) or any(part.startswith(".") for part in path.parts))


def _packing(path: Path) -> str | None:
    suffix = path.suffix.lower()
    return suffix if suffix in (".gz", ".zst") else None


def _format(path: Path) -> Callable[[Path], Iterator[Row]] | None:
    inner = path.with_suffix("") if _packing(path) else path
    return FORMATS.get(inner.suffix.lower())


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked as they are read."""
    with path.open("rb", buffering=0) as file:
        _require_packed(path, file)
        if _packing(path) == ".gz":
            unpacked: Any = gzip.GzipFile(fileobj=file)
        elif _packing(path) == ".zst":
            # Not zstandard's reader: it takes a file that was cut off for a whole one.
            unpacked = pa.input_stream(file, compression="zstd")
        else:
            unpacked = file
        with io.BufferedReader(unpacked, BUFFER) as buffered:
            yield cast(BinaryIO, buffered)


_MAGIC = {".gz": re.compile(rb"\x1f\x8b"), ".zst": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")}
"""What packed data begins with; zstd's may begin with a frame that is skipped."""


def _require_packed(path: Path, file: FileIO) -> None:
    """That a file is packed as its suffix says; what is only damaged further on is found while it is unpacked."""
    if (packing := _packing(path)) is None:
        return
    begins = file.read(4)
    file.seek(0)
    if begins and not _MAGIC[packing].match(begins):
        said = f"is not compressed, though its suffix says {packing}; name it {path.stem}, or compress it"
        raise UserError(f"{path} {said}")


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """The lines of a file with their numbers and the bytes before them."""
    offset = 0
    with _opened(path) as file:
        for number, line in enumerate(iter(partial(file.readline, MAX_LINE + 1), b""), start=1):
            if len(line) > MAX_LINE:
                said = f"the line is longer than {MAX_LINE:,} bytes; put every row on a line of its own"
                raise located(path, number, said)
            yield number, offset, line
            offset += len(line)


def _text(path: Path, number: int, offset: int, line: bytes) -> str:
    """The line's text, without a byte-order mark."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        place = f"byte {offset + error.start} (0x{line[error.start]:02x})"
        raise located(path, number, f"{place} is not UTF-8; save the file as UTF-8") from None
    return text.removeprefix("\ufeff") if number == 1 else text


def _json_rows(path: Path) -> Iterator[Row]:
    for number, offset, line in _lines(path):
        fields = _certain(line)
        if not isinstance(fields, dict):
            text = _text(path, number, offset, line)
            if not text.strip():
                continue
            fields = _json_object(path, number, text)
        yield Row(number, fields)


def _certain(text: bytes) -> Any:
    """The JSON value where the fast decoder is sure to give what the exact one gives; else None."""
    try:
        value = orjson.loads(text)
        # Every key ends in `":`, but for those with a space before the colon. So a key that is there twice makes one
        # more of these than the value has keys; so does a text that holds one, and then the exact decoder decides.
        certain = text.count(b'":') == _keys(value, 0) and not _SPACED_KEY.search(text)
    except ValueError:
        return None
    return value if certain else None


_SPACED_KEY = re.compile(rb'"[ \t\r\n]+:')


def _keys(value: Any, depth: int) -> int:
    """The number of keys in a value, at any depth.

    Raises:
        ValueError: a number may be an integer that the fast decoder rounded, or the value is nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise ValueError
    keys = 0
    if type(value) is dict:
        keys, value = len(value), value.values()
    elif type(value) is not list:
        value = (value,)
    for item in value:
        kind = type(item)
        if kind is dict or kind is list:
            keys += _keys(item, depth + 1)
        elif kind is float and not -(2.0**63) < item < 2.0**63:
            raise ValueError
    return keys


def _check_depth(value: Any, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"objects or lists are nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, depth + 1)


def _exact(text: str) -> Any:
    """The JSON value.

    Raises:
        JSONDecodeError: not JSON.
        UnicodeEncodeError: it holds half of a surrogate pair.
        ValueError, RecursionError: it holds a key twice, a number of too many digits, or is nested too deeply.
    """
    value = _DECODER.decode(text)
    _check_depth(value)
    if "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _not_json(error: json.JSONDecodeError) -> str:
    return f"not JSON at column {error.colno}: {error.msg.removesuffix(' at')}"


def _json_object(path: Path, number: int, text: str) -> dict[str, Any]:
    try:
        value = _exact(text)
    except json.JSONDecodeError as error:
        if not text.endswith("\n"):
            raise located(
                path, number, "the file ends within this row: it was cut off; send the complete file"
            ) from None
        said = f"{_not_json(error)}; expected one JSON object a line"
        raise located(path, number, said) from None
    except UnicodeEncodeError:
        raise located(path, number, f"holds {HALF_CHARACTER}") from None
    except (ValueError, RecursionError) as error:
        raise located(path, number, f"not a row: {error}") from None
    if not isinstance(value, dict):
        raise located(path, number, f"a JSON {type(value).__name__}; expected one JSON object a line")
    return value


HALF_CHARACTER = "half of a surrogate pair, which is no character; mend the text"


def _document_rows(path: Path) -> Iterator[Row]:
    document = _document(path)
    if document is None:
        yield from _json_rows(path)
        return
    for number, fields in enumerate(_listed(document), start=1):
        if not isinstance(fields, dict):
            raise UserError(f"{path}: row {number} is a JSON {type(fields).__name__}; expected a list of objects")
        yield Row(number, fields)


def _document(path: Path) -> Any:
    """The file's one JSON value; None where it is lines of JSON."""
    with _opened(path) as file:
        content = file.read(MAX_DOCUMENT + 1)
    if len(content) > MAX_DOCUMENT:
        raise UserError(f"{path} is larger than {MAX_DOCUMENT:,} bytes; write it as JSON Lines (.jsonl) or Parquet")
    document = _certain(content)
    if document is not None:
        return document
    text = _text(path, 1, 0, content)
    try:
        return _exact(text) if text.strip() else []
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            return None
        raise located(path, error.lineno, f"{_not_json(error)}; is the file whole?") from None
    except UnicodeEncodeError:
        raise UserError(f"{path} holds {HALF_CHARACTER}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _listed(document: Any) -> list[Any]:
    """The rows of a document: its list; of an object the list that it wraps, or itself."""
    if not isinstance(document, dict):
        return document if isinstance(document, list) else [document]
    wrapped = list(document.values()) if len(document) == 1 else [document.get(name) for name in WRAPPERS]
    lists = [value for value in wrapped if isinstance(value, list) and value and isinstance(value[0], dict)]
    return lists[0] if len(lists) == 1 else [document]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if repeated := _repeated([key for key, _ in pairs]):
        raise ValueError(f"the key {repeated!r} is there twice; keep one")
    return dict(pairs)


def _repeated(names: Sequence[str]) -> str | None:
    """A name that is there more than once."""
    name, times = (Counter(names).most_common(1) or [("", 0)])[0]
    return name if times > 1 else None


def _finite(value: float) -> float | str:
    """The number, or its JavaScript name where JSON has none for it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_float=lambda text: _finite(float(text)),
    parse_constant=str,
)


def _csv_rows(path: Path) -> Iterator[Row]:
    header: list[str] | None = None
    for number, cells in _csv_cells(path):
        if header is None:
            header = cells
            _require_commas(path, number, header)
            if repeated := _repeated(header):
                raise located(path, number, f"two columns are named {repeated!r}; rename or remove one")
        elif len(cells) != len(header):
            said = f"{len(cells)} cells where the header has {len(header)}; quote texts that hold commas or line breaks"
            raise located(path, number, said)
        else:
            yield Row(number, dict(zip(header, cells, strict=True)))


def _require_commas(path: Path, number: int, header: Sequence[str]) -> None:
    """That a header is no line of another delimiter, which would be read as one long name."""
    other = next((name for sign, name in DELIMITERS.items() if len(header) == 1 and sign in header[0]), None)
    if other:
        raise located(path, number, f"the cells are separated by {other}; expected commas: export the file with commas")


def _csv_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file, each with the line on which it begins: a quoted cell may span lines."""
    csv.field_size_limit(MAX_LINE)  # the csv module's own limit of 131,072 is below a long prompt
    reader = csv.reader((_text(path, *line) for line in _lines(path)), strict=True)
    while True:
        begins = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            said = f"not CSV: {error}; expected commas between cells and texts in double quotes, the last one closed"
            raise located(path, begins, said) from None
        if cells:
            yield begins, cells


def _parquet_rows(path: Path) -> Iterator[Row]:
    with _seekable(path) as file:
        try:
            yield from _table_rows(path, pq.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER))
        except UserError:
            raise
        except (pa.ArrowException, ValueError, OverflowError, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            raise UserError(f"{path} is not a whole Parquet file: {error}; write it again") from None


@contextmanager
def _seekable(path: Path) -> Iterator[BinaryIO]:
    """The file; a packed one is unpacked to the disk, for Parquet is read from its end."""
    if not _packing(path):
        with path.open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as unpacked:
        with _opened(path) as packed:
            shutil.copyfileobj(packed, unpacked, BUFFER)
        unpacked.seek(0)
        yield cast(BinaryIO, unpacked)


def _table_rows(path: Path, table: pq.ParquetFile) -> Iterator[Row]:
    if repeated := _repeated(table.schema_arrow.names):
        raise UserError(f"{path}: two columns are named {repeated!r}; rename or remove one")
    number = 0
    for batch in table.iter_batches(batch_size=1024):
        for fields in batch.to_pylist():
            number += 1
            yield Row(number, json_value(fields))


def json_value(value: Any) -> Any:
    """The value in JSON's types; what JSON has no type for becomes its text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float | Decimal):
        return _finite(float(value))
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return value.decode() if isinstance(value, bytes) else str(value)


DELIMITERS = {";": "semicolons", "\t": "tabs"}
"""What some exports write between cells instead of commas."""

FORMATS: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _json_rows,
    ".ndjson": _json_rows,
    ".json": _document_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}
EXPECTED = f"{', '.join(FORMATS)}, each also with .gz or .zst"
