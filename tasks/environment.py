"""What a run computed with: package versions, processor, ranks. Tags of a version, and what differs from them now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES_TAG, DEVICE_TAG, CONSTRAINTS_TAG, SEED_TAG = "packages", "device", "constraints", "seed"
RANKS_TAG, LAUNCH_TAG, TOLERANCE_TAG = "world_size", "launch", "metric_tolerance"
GPU_TOLERANCE = 0.02
"""How far a metric of a run on a GPU may be off when it is made again, absolute."""
PACKAGES = (
    "torch", "transformers", "accelerate", "tokenizers", "safetensors", "peft", "numpy", "polars", "dvc", "mlflow",
)  # fmt: skip
"""Those that decide the numbers, and those that keep them."""
CONSTRAINTS = Path("constraints.txt")
_SUMMARY = Path("reports/train/summary.json")


def environment_tags(seed: int, launch: Path) -> dict[str, str]:
    """The tags of a run that has just trained here."""
    computed_on = device()
    return {
        PACKAGES_TAG: json.dumps(installed()),
        CONSTRAINTS_TAG: constraints_digest(CONSTRAINTS.read_bytes() if CONSTRAINTS.exists() else None),
        DEVICE_TAG: computed_on,
        TOLERANCE_TAG: "0" if is_cpu(computed_on) else str(GPU_TOLERANCE),
        RANKS_TAG: str(json.loads(_SUMMARY.read_text(encoding="utf-8"))["ranks"]),
        LAUNCH_TAG: str(launch),
        SEED_TAG: str(seed),
    }


def constraints_digest(content: bytes | None) -> str:
    """SHA-256 of constraints.txt; "none" without one."""
    return "none" if content is None else sha256(content).hexdigest()


def installed() -> dict[str, str]:
    """The versions of the packages that matter; "none" for one that is not installed."""
    return {name: _version(name) for name in PACKAGES}


def device() -> str:
    """What computes here: the GPU's name, or the CPU's instruction set, which decides how sums are rounded."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"CPU {torch.backends.cpu.get_cpu_capability()}"


def is_cpu(name: str) -> bool:
    """Whether a recorded device gives the same bytes again."""
    return name.startswith("CPU ")


def tolerance(tags: Mapping[str, str]) -> float | None:
    """How far a recorded run's metrics may be off when it is made again; None where its bytes must be the same."""
    if is_cpu(tags.get(DEVICE_TAG, "CPU ")):
        return None
    return float(tags.get(TOLERANCE_TAG, GPU_TOLERANCE))


def differences(tags: Mapping[str, str]) -> list[str]:
    """A line for each thing that was another when the run was recorded; a run without tags shows none."""
    then, now = json.loads(tags.get(PACKAGES_TAG, "{}")), installed()
    found = [f"{name} {version}, now {now.get(name)}" for name, version in then.items() if now.get(name) != version]
    if DEVICE_TAG in tags and tags[DEVICE_TAG] != device():
        found.append(f"{tags[DEVICE_TAG]}, now {device()}")
    return found


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
