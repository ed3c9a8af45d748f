"""The folder of a training run, named by the digest of what decides its result: checkpoints, and what came out."""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import amopo_core
from amopo_core.atomic import write_json
from amopo_core.config import Params
from amopo_core.errors import UserError
from amopo_core.locks import lock, wait_for_lock
from amopo_core.training.launch import Launch

RUNS = Path(".amopo/checkpoints")
FAILURE, CHECKPOINTS, POLICY = "failure.json", "checkpoints", "policy"
SUMMARY, DROPPED, INPUTS = "summary.json", "dropped.jsonl", "inputs.json"
"""What a run folder holds."""
COMPLETE = "complete"
"""Name of the file that a checkpoint gets last: a folder without it was torn by a crash."""

_LOCK = "lock"
_SIZES = "sizes"
"""Key of the mark: bytes of each file, by its name."""
_PUBLISHED = "published"
"""Name of the file that a run folder gets once its policy is in its place."""
_SECTIONS = {"runtime", "dimensions", "views", "objective", "train"}
_PACKAGES = ("torch", "transformers", "accelerate", "tokenizers")


def run_folder(digests: Mapping[str, str]) -> Path:
    """Where a run of these inputs keeps its checkpoints."""
    return RUNS / sha256(json.dumps(dict(digests)).encode()).hexdigest()[:16]


def input_digests(params: Params, inputs: Sequence[Path], launch: Launch) -> dict[str, str]:
    """The digest of each part that decides a run's result: parameters, data, base, code, packages, ranks, launch.

    Raises:
        UserError: an input folder is missing.
    """
    data, base = inputs
    for folder in inputs:
        if not folder.is_dir():
            raise UserError(f"{folder} is not here; the stage before this one makes it: run `dvc repro`")
    code = Path(amopo_core.__file__).parent
    return {
        "parameters": _digest([json.dumps(params.model_dump(mode="json", include=_SECTIONS)).encode()]),
        "data": _digest(_blocks(data, data.rglob("*"))),
        "base": _digest(_blocks(base, base.rglob("*"))),
        "code": _digest(_blocks(code, code.rglob("*.py"))),
        "packages": _digest([json.dumps(package_versions(params)).encode()]),
        "ranks": str(launch.ranks),
        "launch": f"{launch.kind} on {'CPU' if launch.on_cpu else 'GPU'}",
    }


def package_versions(params: Params) -> dict[str, str]:
    """The versions of the packages that a run of these parameters computes with; "none" where one is not installed."""
    adapter = params.train.adapter
    needed = dict.fromkeys(_PACKAGES, True) | {
        "peft": adapter is not None,
        "bitsandbytes": adapter is not None and adapter.base_bits == 4,
    }
    return {package: _version(package) for package, is_needed in needed.items() if is_needed}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def differences(known: Mapping[str, str], today: Mapping[str, str]) -> str:
    """Each part that differs, with both digests; empty where none does."""
    parts = [part for part in today if known.get(part) != today[part]]
    return ", ".join(f"{part} (then {known.get(part, 'unknown')}, now {today[part]})" for part in parts)


def open_run(run: Path, digests: Mapping[str, str], *, first: bool = True) -> None:
    """Make the run folder, or go on in it; of several machines the first writes what it belongs to.

    Raises:
        UserError: the folder or one of its whole checkpoints belongs to other inputs.
    """
    marks = sorted(run.glob(f"{CHECKPOINTS}/checkpoint-*/{COMPLETE}"))
    for path in [path for path in (run / INPUTS, *marks) if path.exists()]:
        _refuse_others(path, digests, run)
    run.mkdir(parents=True, exist_ok=True)
    if first:
        write_json(run / INPUTS, dict(digests))


def _refuse_others(path: Path, digests: Mapping[str, str], run: Path) -> None:
    if found := differences(_read_digests(path), digests):
        raise UserError(
            f"{path.parent} belongs to other inputs: {found}; restore them, or remove {run} and start without"
            " --resume to train anew"
        )


def at_work(run: Path) -> TextIO:
    """A file that says, as long as it is open, that a rank is at work in the run folder."""
    file = (run / _LOCK).open("a", encoding="utf-8")
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def wait_until_free(run: Path) -> None:
    """Wait for the ranks of an earlier stage, which save and end where it was killed."""
    with (run / _LOCK).open("a", encoding="utf-8") as file:
        if not lock(file):
            sys.stderr.write(f"train: ranks are still at work in {run}; waiting for their end\n")
            wait_for_lock(file)


def is_run_folder(folder: Path) -> bool:
    """Whether a run was begun in the folder."""
    return (folder / INPUTS).is_file()


def interrupted_runs(run: Path, digests: Mapping[str, str]) -> list[str]:
    """A line for each other run that came to a checkpoint and was not finished: what differs, and how to go on."""
    return [
        f"{inputs.parent} is an unfinished run of other inputs: {differences(_read_digests(inputs), digests)};"
        " with these again the same command goes on with it; else remove the folder"
        for inputs in sorted(RUNS.glob(f"*/{INPUTS}"))
        if inputs.parent.resolve() != run.resolve()
        and not (inputs.parent / _PUBLISHED).exists()
        and any(inputs.parent.glob(f"{CHECKPOINTS}/checkpoint-*/{COMPLETE}"))
    ]


def _read_digests(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _digest(blocks: Iterable[bytes]) -> str:
    state = sha256()
    for block in blocks:
        state.update(block)
    return state.hexdigest()[:16]


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


def mark_complete(checkpoint: Path) -> None:
    """Mark a checkpoint as whole, with the digests of its run's inputs and the sizes of its files."""
    inputs = checkpoint.parent.parent / INPUTS
    known = json.loads(inputs.read_text(encoding="utf-8")) if inputs.exists() else {}
    write_json(checkpoint / COMPLETE, known | {_SIZES: _sizes(checkpoint)})


def _sizes(checkpoint: Path) -> dict[str, int]:
    """Bytes of each file of a checkpoint but its mark."""
    files = [path for path in checkpoint.rglob("*") if path.is_file() and path.name != COMPLETE]
    return {str(path.relative_to(checkpoint)): path.stat().st_size for path in sorted(files)}


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint has its mark, and every file is as long as it was then."""
    try:
        known: dict[str, int] = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8")).get(_SIZES, {})
    except (OSError, ValueError):
        return False
    found = _sizes(checkpoint)
    return all(found.get(name) == size for name, size in known.items())


def last_checkpoint(checkpoints: Path) -> Path | None:
    """The newest whole checkpoint; one that a crash tore, or that was damaged since, is passed over.

    Raises:
        UserError: a checkpoint belongs to other inputs than its run.
    """
    run = checkpoints.parent
    whole = [path.parent for path in checkpoints.glob(f"checkpoint-*/{COMPLETE}")]
    for folder in whole:
        _refuse_others(folder / COMPLETE, _read_digests(run / INPUTS), run)
    undamaged = [folder for folder in whole if is_whole(folder)]
    return max(undamaged, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def remove_torn_checkpoints(checkpoints: Path) -> None:
    """Remove what a crash or a full disk left half-written: it takes room, and its step may be saved once more."""
    for folder in checkpoints.glob("checkpoint-*"):
        if not is_whole(folder):
            shutil.rmtree(folder, ignore_errors=True)


def keep_checkpoints(checkpoints: Path, steps: Collection[int]) -> None:
    """Remove the checkpoints of all other steps; the mark goes first, so that a crash leaves none with a part."""
    kept = {checkpoint_folder(checkpoints, step) for step in steps}
    for folder in checkpoints.glob("checkpoint-*"):
        if folder not in kept:
            (folder / COMPLETE).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)


def _blocks(folder: Path, files: Iterable[Path]) -> Iterator[bytes]:
    """Names and bytes of files, in the order of their names."""
    for path in sorted(path for path in files if path.is_file()):
        yield f"{path.relative_to(folder)}\n".encode()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                yield block
