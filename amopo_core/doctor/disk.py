"""Whether the disk holds a run's checkpoints."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from amopo_core.doctor.finding import Finding, ok, warn, wrong
from amopo_core.training.run_folder import RUNS
from amopo_core.units import in_bytes

if TYPE_CHECKING:
    from amopo_core.doctor.examine import Site

BASE = Path("models/base")
WEIGHT, OPTIMIZER = 4, 8
"""Bytes of a parameter in float32, and of AdamW's two moments of it."""
KEPT = 3
"""Checkpoints at a time: the best, the last, and the one that is being written."""


def check(site: Site) -> Iterator[Finding]:
    """The checkpoints' estimated size against the free space where they are written."""
    free = shutil.disk_usage(_existing(RUNS)).free
    if not any(BASE.glob("*.safetensors")):
        yield ok(f"{in_bytes(free)} free; {BASE} is not there yet, so the checkpoints' size is not known")
        return
    count = parameters(BASE)
    if site.params and site.params.train.adapter:
        yield ok(f"{in_bytes(free)} free; checkpoints hold adapters only, the base has {count:,} parameters")
        return
    needed = count * (WEIGHT + OPTIMIZER) * KEPT + count * WEIGHT
    said = f"{in_bytes(free)} free; {KEPT} checkpoints and the policy of {count:,} parameters take {in_bytes(needed)}"
    if free < needed:
        yield wrong(said, "free some space, or put .amopo on a larger disk (a link will do)")
    elif free < 2 * needed:
        yield warn(said, "DVC keeps a copy of every policy: free some space soon (`dvc gc --workspace`)")
    else:
        yield ok(said)


def parameters(folder: Path) -> int:
    """Numbers in a folder's safetensors, by their headers alone."""
    return sum(
        prod(tensor["shape"])
        for path in folder.glob("*.safetensors")
        for name, tensor in _header(path).items()
        if name != "__metadata__"
    )


def _header(path: Path) -> dict[str, dict[str, list[int]]]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, dict[str, list[int]]] = json.loads(file.read(length))
    return header


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())
