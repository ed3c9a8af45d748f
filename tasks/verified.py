"""Objects of DVC's cache, hashed before they are used: DVC takes a read-only file for what its name says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ruamel.yaml import YAML

from tasks.dvc_command import run_dvc
from tasks.lock import LOCK_FILE, read_lock

LISTING = ".dir"
"""What the name of an object ends in that lists a folder."""
_READERS = 4
"""Files that are hashed at a time."""


def drop_damaged(names: Iterable[str]) -> list[str]:
    """Remove those objects from the cache whose bytes are not what their name says; their names.

    DVC takes what is not there from a remote, makes it anew, or says that it is not there. An object that is lacking
    already is none of this one's business.

    Args:
        names: DVC's digests; a folder's brings those of its files along.
    """
    cache = Path(run_dvc("cache", "dir").stdout.strip()) / "files" / "md5"
    asked = set(names)
    damaged = _damaged(cache, asked)
    listed: set[str] = set()
    for name in asked:
        if name.endswith(LISTING) and name not in damaged and (path := _path(cache, name)).exists():
            listed.update(str(entry["md5"]) for entry in json.loads(path.read_bytes()))
    damaged |= _damaged(cache, listed - asked)
    for name in damaged:
        _path(cache, name).unlink()
    return sorted(damaged)


def names_in(folder: Path) -> set[str]:
    """The objects that a workspace's lock file and pointers name as outputs."""
    found = {digest for outputs in read_lock(folder / LOCK_FILE).outputs.values() for digest in outputs.values()}
    for pointer in folder.glob("*/*.dvc"):
        found |= {str(out["md5"]) for out in YAML(typ="safe").load(pointer)["outs"]}
    return found


def _damaged(cache: Path, names: set[str]) -> set[str]:
    """Those of the objects that are there and have other bytes."""
    present = sorted(name for name in names if _path(cache, name).exists())
    with ThreadPoolExecutor(_READERS) as readers:
        digests = readers.map(lambda name: _md5(_path(cache, name)), present)
        return {name for name, digest in zip(present, digests, strict=True) if name.removesuffix(LISTING) != digest}


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _path(cache: Path, name: str) -> Path:
    return cache / name[:2] / name[2:]
