"""Erasing rows for good: their bytes in batches, DVC's stores, MLflow's samples and this workspace.

The order lets the same command complete what a kill left half done: the decision stands first, what is removed is
written down before it goes, and the batches, from which the texts to look for are read, come last.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from amopo_core.atomic import write_json
from amopo_core.config import Params
from amopo_core.data.batches import batches_of, declared_batches, erase_rows, locked
from amopo_core.data.decisions import read_decisions
from amopo_core.data.erased import Erased, erased, holds, texts_of_rows
from amopo_core.data.segments import Segment, remove_segments_except, segments_of
from amopo_core.data.tables import Origin
from tasks import git
from tasks.dvc_command import FEEDBACK, add
from tasks.erased_artifacts import erase_from_artifacts
from tasks.measurements import KEPT
from tasks.objects import Objects
from tasks.records import Records, records_naming
from tasks.reproduction import FOLDER as REPRODUCTIONS

_LEDGER = Path(".amopo/erasing.json")
"""The names of the objects that an erasure removes, until it is complete."""
_OUTPUTS = (Path("data/normalized"), Path("data/pairs"), Path("data/quarantine"))
_SHOWN = (Path("reports"), KEPT)
"""Where texts are shown, file by file."""
_UNFINISHED = ("data/*.new", "reports/**/*.new", f"{KEPT}/*.new", ".amopo/tmp*")
"""What killed stages and trials leave: no part of any state, and often nothing that can be looked into."""


@dataclass(frozen=True)
class Erasure:
    """What was removed, and what can no longer be made again."""

    rows: int
    objects: Mapping[str, Sequence[str]]
    """Names of the removed objects by store."""
    artifacts: Sequence[str]
    """MLflow's artifacts that were rewritten."""
    outputs: Sequence[str]
    """Files and folders of the workspace that were removed; the next run makes them anew."""
    records: Records
    """Commits and versions whose data are no longer complete."""


def erase(rows: pl.DataFrame, params: Params, raters: Collection[str] = ()) -> Erasure:
    """Remove every copy that this workspace can reach of rows that are forgotten already.

    Args:
        rows: `source`, `batch`, `line`; those that are erased already may be among them.
        params: how the sources are read.
        raters: names that go from the reports too.

    Raises:
        OutsideError: a store or MLflow did not do what was asked; the same command again goes on from there.
    """
    objects = Objects()
    _remove_unfinished()
    git.remove_worktree(REPRODUCTIONS)  # whole copies of feedback, where one differed or was killed
    remaining = _remaining(rows, params)
    gone = erased(rows, texts_of_rows(FEEDBACK, params.sources, rows), remaining, raters)
    _keep_own_copies(rows)
    outputs = _remove_outputs(gone)
    remove_segments_except(remaining)
    removed = _remove_objects(objects, gone)
    artifacts = erase_from_artifacts(gone)
    _erase_from_batches(rows)
    add(FEEDBACK)
    ledger = _ledger()
    objects.forget_runs(ledger)
    records = records_naming(ledger, objects)
    _LEDGER.unlink(missing_ok=True)
    return Erasure(rows.height, removed, artifacts, outputs, records)


def _remaining(rows: pl.DataFrame, params: Params) -> list[Segment]:
    """Every batch of the declared sources, taken apart without the rows and without sources that are forgotten."""
    decisions = read_decisions()
    sources = [name for name in params.sources if name not in decisions.sources and batches_of(FEEDBACK, name)]
    named = rows.filter(pl.col("source").is_in(sources)).rows()
    without = replace(decisions, rows=frozenset(decisions.rows) | {Origin(*row) for row in named})
    batches = declared_batches(FEEDBACK, sources) if sources else []
    return segments_of(batches, params.sources, list(params.dimensions), without)


def _remove_unfinished() -> None:
    """Remove what was begun and never finished; of two processes at a source, this one waits for the other."""
    for folder in (folder for folder in FEEDBACK.glob("*") if folder.is_dir()):
        with locked(folder):
            for path in folder.glob("*.new"):
                path.unlink()
    for path in (path for pattern in _UNFINISHED for path in Path().glob(pattern)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _keep_own_copies(rows: pl.DataFrame) -> None:
    """Put a file in the place of every batch that is only a symbolic link into the cache: its object is going."""
    for source, batch in rows.select("source", "batch").unique(maintain_order=True).rows():
        path = FEEDBACK / source / f"{batch}.parquet"
        if path.is_symlink():
            beside = path.with_name(path.name + ".new")
            with locked(path.parent):
                shutil.copyfile(path, beside)
                beside.replace(path)


def _remove_objects(objects: Objects, gone: Erased) -> dict[str, Sequence[str]]:
    """Remove the objects that hold what goes from every store; what they are is looked up in all stores before."""
    found = {store.name: store.that_hold(lambda file: holds(file, gone)) for store in objects.stores}
    write_json(_LEDGER, {"objects": sorted(_ledger().union(*found.values()))})
    for store in objects.stores:
        store.remove(found[store.name])
    return {name: names for name, names in found.items() if names}


def _remove_outputs(gone: Erased) -> list[str]:
    """Remove the stages' folders and reports that hold what goes."""
    folders = [folder for folder in _OUTPUTS if any(_holds(path, gone) for path in folder.rglob("*"))]
    reports = [path for folder in _SHOWN for path in folder.rglob("*") if _holds(path, gone)]
    for folder in folders:
        shutil.rmtree(folder)
    for report in reports:
        report.unlink()
    return [str(path) for path in (*folders, *reports)]


def _holds(path: Path, gone: Erased) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return holds(file, gone)


def _erase_from_batches(rows: pl.DataFrame) -> None:
    """Leave the rows' digests in their batches, and nothing else of them."""
    for (source, batch), part in rows.group_by("source", "batch", maintain_order=True):
        path = FEEDBACK / str(source) / f"{batch}.parquet"
        with locked(path.parent):  # an ingestion removes what is written beside the batches
            lines = pl.scan_parquet(path).filter(pl.col("row").is_not_null()).select("line").collect()["line"]
            left = frozenset(part["line"]) & frozenset(lines)
            if left:
                erase_rows(path, left)


def _ledger() -> frozenset[str]:
    """The objects that this erasure, or one that was stopped, removes."""
    if not _LEDGER.exists():
        return frozenset()
    return frozenset(json.loads(_LEDGER.read_text(encoding="utf-8"))["objects"])
