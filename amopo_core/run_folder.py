"""The folder of a training run, named by the digest of what decides its result: checkpoints, and what came out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import amopo_core
from amopo_core.config import Params
from amopo_core.errors import UserError

RUNS = Path(".amopo/checkpoints")
FAILURE, CHECKPOINTS, POLICY = "failure.json", "checkpoints", "policy"
SUMMARY, DROPPED = "summary.json", "dropped.jsonl"
"""What a run folder holds."""
COMPLETE = "complete"
"""Name of the file that a checkpoint gets last: a folder without it was torn by a crash."""

_PUBLISHED = "published"
"""Name of the file that a run folder gets once its policy is in its place."""
_SECTIONS = {"runtime", "dimensions", "views", "objective", "train"}
_PACKAGES = ("torch", "transformers", "accelerate")


def run_folder(params: Params, inputs: Sequence[Path], ranks: int) -> Path:
    """Where a run with these parameters, folders, ranks, this code and these packages keeps its checkpoints.

    Raises:
        UserError: an input folder is missing.
    """
    versions = [version(package) for package in _PACKAGES]
    state = sha256(json.dumps([params.model_dump(mode="json", include=_SECTIONS), ranks, versions]).encode())
    for folder in inputs:
        if not folder.is_dir():
            raise UserError(f"{folder} is not here; the stage before this one makes it: run `dvc repro`")
        for block in _blocks(folder, folder.rglob("*")):
            state.update(block)
    code = Path(amopo_core.__file__).parent
    for block in _blocks(code, code.rglob("*.py")):
        state.update(block)
    return RUNS / state.hexdigest()[:16]


def mark_published(run: Path) -> None:
    """Note that the run's policy is in its place, and remove every other run that had come so far.

    This one's last checkpoint stays: whoever is stopped before the policy is recorded finds the training done.
    """
    (run / _PUBLISHED).touch()
    remove_published(keep=run)


def remove_published(keep: Path | None = None) -> None:
    """Remove the runs whose policy is in its place, but one; those of interrupted runs stay."""
    for mark in RUNS.glob(f"*/{_PUBLISHED}"):
        if mark.parent != keep:
            shutil.rmtree(mark.parent)


def checkpoint_folder(checkpoints: Path, step: int) -> Path:
    """Where transformers.Trainer puts the checkpoint of a step."""
    return checkpoints / f"checkpoint-{step}"


def last_checkpoint(checkpoints: Path) -> Path | None:
    """The newest whole checkpoint; one that a crash tore is passed over."""
    whole = [path.parent for path in checkpoints.glob(f"checkpoint-*/{COMPLETE}")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def remove_torn_checkpoints(checkpoints: Path) -> None:
    """Remove what a full disk left half-written, which frees the room to say so."""
    for folder in checkpoints.glob("checkpoint-*"):
        if not (folder / COMPLETE).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _blocks(folder: Path, files: Iterable[Path]) -> Iterator[bytes]:
    """Names and bytes of files, in the order of their names."""
    for path in sorted(path for path in files if path.is_file()):
        yield f"{path.relative_to(folder)}\n".encode()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                yield block
