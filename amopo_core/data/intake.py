"""Taking files of feedback in: what was found in each, and the batch that now holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from amopo_core.config import Params, Source
from amopo_core.data.batches import Batch, append_batch, batches_of
from amopo_core.data.decisions import read_decisions
from amopo_core.data.describe import SAMPLE, Description, declared_against_seen, describe, labels_of
from amopo_core.data.ratings import RowReader
from amopo_core.data.reading import Row, read_files, read_rows
from amopo_core.data.segments import SEGMENTS, Counts, segments_of
from amopo_core.data.shapes.shape import Unfit
from amopo_core.errors import UserError
from amopo_core.redaction import load_redactor, redacted_row

Redactor = Callable[[str], str]
_TRIALS = SEGMENTS.parent
"""What is only tried out has a folder in here."""


@dataclass(frozen=True)
class Taken:
    """What was found in a file, and what became of it."""

    file: str
    rows: int
    """Rows that it holds; 0 where all are known."""
    batch: Batch | None
    """None where the source has these rows already."""
    description: Description
    scales: Sequence[str]
    """For a declared source, a line per dimension: the scale that it declares, and what was seen in the first rows."""
    counts: Counts | None
    """For a declared source, what becomes of the batch's rows; None for another source, or where nothing is new."""
    declared_shape: str | None
    """The shape that a declared source says its rows have."""
    suggested_counts: Counts | None
    """For another source, what would become of the first rows, declared as suggested; None where the suggestion leaves
    something open."""


def take_path(path: Path, source: str, params: Params, feedback: Path) -> Iterator[Taken]:
    """Store the rows of a file, or of every file of a folder, one batch each; what was found in it, one by one.

    Raises:
        UserError: a file cannot be read; those before it are stored.
    """
    for file in read_files(path):
        yield take_rows(partial(read_rows, file), file.name, source, params, feedback)


def take_rows(
    rows: Callable[[], Iterable[Row]], name: str, source: str, params: Params, feedback: Path, **store: object
) -> Taken:
    """Store the rows that `rows` gives each time it is called, as one batch.

    Args:
        rows: called twice: for a look at the first rows, then for all of them.
        name: what they come from.
        source: whose feedback it is.
        params: says how the source is read, and which redactor there is.
        feedback: the folder of all batches.
        store: `watermark` and `skip_known` of `append_batch`.

    Raises:
        UserError: the rows cannot be read, or are of no known shape and the source is not declared.
    """
    redact = load_redactor(Path(params.ingestion.redactor))
    declared = params.sources.get(source)
    rater = declared.rater_field if declared else None
    sample = [_plain(row, redact, rater) for row in islice(rows(), SAMPLE)]
    description = describe(sample, source)
    if declared is None and description.shape is None:
        raise UserError(_unknown(name, source, description))
    batch = append_batch(feedback, source, rows(), file=name, redact=redact, rater=rater, **store)  # type: ignore[arg-type]
    return Taken(
        file=name,
        rows=batch.rows if batch else 0,
        batch=batch,
        description=description,
        scales=declared_against_seen(labels_of(sample, declared), declared) if declared else [],
        counts=_counts(batch, declared, params, _segments(feedback)) if batch and declared else None,
        declared_shape=declared.rows if declared else None,
        suggested_counts=None if declared else _counts_of(sample, description.suggested_source),
    )


@contextmanager
def nothing_stored(feedback: Path, source: str) -> Iterator[Path]:
    """A folder like that of all batches, to try things in: what is stored there is gone afterwards."""
    _TRIALS.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=_TRIALS) as name:
        for batch in batches_of(feedback, source):
            (Path(name) / source).mkdir(exist_ok=True)
            (Path(name) / source / batch.name).symlink_to(batch.resolve())
        yield Path(name)


def _unknown(name: str, source: str, description: Description) -> str:
    nearest = [f"  {line}" for line in description.nearest]
    fields = [f"  {field}" for field in description.fields]
    said = (
        f"{name}: its rows have no known shape, so nothing is stored. The nearest shapes, and what is missing or empty"
        " for each:"
    )
    mend = (
        f"rename the fields, or declare the source {source} in params.yaml with the names they have (docs/sources.md)"
    )
    return "\n".join([said, *nearest, "What was seen:", *fields, mend])


def _plain(row: Row, redact: Redactor | None, rater: str | None) -> dict[str, object]:
    return row.fields if redact is None else redacted_row(row.fields, redact, rater)


def _counts(batch: Batch, source: Source, params: Params, segments: Path) -> Counts:
    """What becomes of a batch's rows. What is found out is kept in `segments` for the next run."""
    [segment] = segments_of([batch], {batch.source: source}, list(params.dimensions), read_decisions(), segments)
    return segment.counts


def _counts_of(rows: Sequence[Mapping[str, object]], source: Source | None) -> Counts | None:
    """What becomes of rows that are stored nowhere; None without a source."""
    if source is None:
        return None
    reader, counts = RowReader(source), Counts(incoming=len(rows))
    for row in rows:
        try:
            reader.read(row)
        except Unfit as unfit:
            counts.refused[unfit.reason] += 1
        else:
            counts.used += 1
    return counts


def _segments(feedback: Path) -> Path:
    """Where to keep what is found out of a batch: of one that is only tried out, nothing stays."""
    return feedback / ".segments" if feedback.resolve().parent == _TRIALS.resolve() else SEGMENTS
