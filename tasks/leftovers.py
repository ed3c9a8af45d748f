"""What a killed DVC leaves: a file that it was writing, and locks of processes that are gone."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.dvc_command import CHAMPION, FEEDBACK
from tasks.lock import LOCK_FILE

PATH_LOCKS = Path(".dvc/tmp/rwlock")
"""Which process works on which path, by DVC."""
POINTERS = tuple(folder.with_name(f"{folder.name}.dvc") for folder in (FEEDBACK, CHAMPION))
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
_OTHER = {"etag", "checksum"}
"""What DVC notes instead of a digest for things that lie elsewhere; behind a digest comes the size."""
_DVC = {"dvc", "tasks.dvc_process"}
"""Words of a command that runs DVC."""
_WRITING = 2.0
"""Longer than DVC takes to write one of these files [seconds]."""


def clear_leftovers() -> list[str]:
    """Remove what a killed DVC left, and say what that was; call it while no other run is at work here.

    DVC empties a file and then writes it anew. Half a lock file or pointer is removed: what it said is found again, in
    DVC's run cache and in the folder pointed to.
    """
    said = [f"{path} was cut short: DVC finds out anew what it held" for path in _cut_short()]
    if PATH_LOCKS.exists() and not _held():
        PATH_LOCKS.unlink(missing_ok=True)
    return said


def _cut_short() -> list[Path]:
    found = [path for path in (LOCK_FILE, *POINTERS) if not is_whole(path)]
    if found:
        time.sleep(_WRITING)  # somebody's own `dvc` may be at it
        found = [path for path in found if not is_whole(path)]
    for path in found:
        path.unlink(missing_ok=True)
    return found


def is_whole(path: Path) -> bool:
    """Whether a lock file or a pointer is one that DVC has written to its end; one that is not there is."""
    try:
        said = YAML(typ="safe").load(path)
        if path == LOCK_FILE:
            return bool(said["stages"]) and all(stage["cmd"] and _is_named(stage) for stage in said["stages"].values())
        return bool(said["outs"]) and _is_named(said)
    except FileNotFoundError:
        return True
    except (YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        return False


def _is_named(part: Mapping[str, Any]) -> bool:
    """Whether a stage or a pointer says of all that it reads and writes, by a whole digest, what it was."""
    entries = [entry for key in ("deps", "outs") for entry in part.get(key, ())]
    return all(
        "path" in entry and (_OTHER & entry.keys() or (_MD5.fullmatch(str(entry["md5"])) and "size" in entry))
        for entry in entries
    )


def _held() -> bool:
    """Whether a DVC that still works holds a path; DVC itself takes any process that has got the number for one."""
    try:
        locks = json.loads(PATH_LOCKS.read_text(encoding="utf-8"))
        infos = [*locks.get("write", {}).values(), *(info for each in locks.get("read", {}).values() for info in each)]
        return any(_is_dvc(int(info["pid"])) for info in infos)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def _is_dvc(number: int) -> bool:
    try:
        return any(Path(word).name in _DVC for word in psutil.Process(number).cmdline())
    except psutil.Error:
        return False
