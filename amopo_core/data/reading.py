"""Feedback files into rows: JSONL, CSV and Parquet, streamed; any damage is an error that names file and line."""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from amopo_core.errors import UserError, located

MAX_CELL = 2**31 - 1
"""Characters of a CSV cell at most: the csv module's own limit of 131,072 is below a long prompt."""


class Row(NamedTuple):
    """A row of a feedback file as it came."""

    line: int
    """1-based line on which the row begins; in Parquet, which has no lines, the number of the row."""
    fields: dict[str, Any]
    """JSON values. NaN and infinities, which JSON lacks, are the texts `NaN`, `Infinity`, `-Infinity`."""


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, by its suffix: .jsonl, .ndjson or .csv (also with .gz), or .parquet.

    Raises:
        UserError: the file is missing, unreadable, empty, cut off, damaged, not UTF-8 or not what its suffix says.
    """
    empty = True
    try:
        for row in _reader(path)(path):
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
        raise UserError(f"{path} cannot be read: {error.strerror}; check its permissions and its disk") from None
    if empty:
        raise UserError(f"{path} holds no rows; expected at least one")


def _reader(path: Path) -> Callable[[Path], Iterator[Row]]:
    name = path.name.lower()
    if name.endswith(".parquet"):
        return _parquet_rows
    plain = name.removesuffix(".gz")
    if plain.endswith(".csv"):
        return _csv_rows
    if plain.endswith((".jsonl", ".ndjson")):
        return _json_rows
    raise UserError(
        f"{path}: the suffix says no known format; expected .jsonl, .ndjson, .csv (each also .gz) or .parquet"
    )


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file with their line ends, without a byte-order mark."""
    offset = 0
    with _binary(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                place = f"byte {offset + error.start} (0x{line[error.start]:02x})"
                raise located(path, number, f"{place} is not UTF-8; save the file as UTF-8") from None
            offset += len(line)
            yield text


def _binary(path: Path) -> BinaryIO:
    if path.name.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def _json_rows(path: Path) -> Iterator[Row]:
    for number, text in enumerate(_lines(path), start=1):
        if text.strip():
            yield Row(number, _json_object(path, number, text))


def _json_object(path: Path, number: int, text: str) -> dict[str, Any]:
    try:
        value = _DECODER.decode(text)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        if not text.endswith("\n"):
            raise located(
                path, number, "the file ends within this row: it was cut off; send the complete file"
            ) from None
        said = f"not JSON at column {error.colno}: {error.msg}; expected one JSON object a line"
        raise located(path, number, said) from None
    except UnicodeEncodeError:
        raise located(path, number, "holds half of a surrogate pair, which is no character; mend the text") from None
    except (ValueError, RecursionError) as error:
        raise located(path, number, f"not a row: {error}") from None
    if not isinstance(value, dict):
        raise located(path, number, f"a JSON {type(value).__name__}; expected one JSON object a line")
    return value


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
            if repeated := _repeated(header):
                raise located(path, number, f"two columns are named {repeated!r}; rename or remove one")
        elif len(cells) != len(header):
            said = f"{len(cells)} cells where the header has {len(header)}; quote texts that hold commas or line breaks"
            raise located(path, number, said)
        else:
            yield Row(number, dict(zip(header, cells, strict=True)))


def _csv_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file, each with the line on which it begins: a quoted cell may span lines."""
    csv.field_size_limit(MAX_CELL)
    reader = csv.reader(_lines(path), strict=True)
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
    with path.open("rb") as file:
        try:
            yield from _table_rows(path, pq.ParquetFile(file))
        except UserError:
            raise
        except (pa.ArrowException, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            raise UserError(f"{path} is not a whole Parquet file: {error}; write it again") from None


def _table_rows(path: Path, table: pq.ParquetFile) -> Iterator[Row]:
    if repeated := _repeated(table.schema_arrow.names):
        raise UserError(f"{path}: two columns are named {repeated!r}; rename or remove one")
    number = 0
    for batch in table.iter_batches(batch_size=1024):
        for fields in batch.to_pylist():
            number += 1
            yield Row(number, _json_value(fields))


def _json_value(value: Any) -> Any:
    """The value in JSON's types; what JSON has no type for becomes its text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float | Decimal):
        return _finite(float(value))
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    return value.decode() if isinstance(value, bytes) else str(value)
