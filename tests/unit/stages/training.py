"""The stage `train` as a process on a small run: its inputs, its command, what it leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from amopo_core.data.tables import Pair, write_pairs
from amopo_core.params_file import override

ROOT = Path(__file__).parents[3]
DIMENSIONS = ["helpfulness", "correctness", "instruction_following"]
SETTINGS = [
    "runtime.threads=1", "train.batch_pairs=4", "train.micro_batch_tokens=400", "train.max_length=120",
    "train.epochs=4", "train.log_every=2", "train.checkpoint_every=3", "train.validate_every=5",
]  # fmt: skip
COMMAND = [
    sys.executable, "-m", "amopo_core.stages.train",
    "--pairs", "pairs", "--base", "base", "--policy", "policy", "--report", "report",
]  # fmt: skip
MADE = ("policy", "report", ".amopo", "logs")
"""What a run leaves in its folder."""
OUTPUTS = ["policy/model.safetensors", "report/history.jsonl", "report/summary.json", "report/weights.png"]


def make_pairs() -> list[Pair]:
    """26 pairs, of which a run trains on 22."""
    scores = [dict.fromkeys(DIMENSIONS, score) for score in (5.0, 2.0)]
    return [
        Pair(f"{i:016x}", f"q{i}", [{"role": "user", "content": f"{i}?"}], f"yes {i}", "no" * (i % 3 + 1), *scores)
        for i in range(26)
    ]


def make_inputs(folder: Path, policy: Path, settings: Sequence[str] = SETTINGS) -> None:
    """22 training pairs, 4 epochs of 6 steps, a checkpoint every 3 steps."""
    shutil.copytree(policy, folder / "base")
    shutil.copytree(ROOT / "configs", folder / "configs")
    shutil.copy(ROOT / "tests/params.yaml", folder)
    override(folder / "params.yaml", settings)
    write_training_pairs(folder, make_pairs()[:22])
    write_validation_pairs(folder, make_pairs()[22:])


def write_training_pairs(folder: Path, pairs: list[Pair]) -> None:
    write_pairs(folder / "pairs" / "train.parquet", pairs, DIMENSIONS)


def write_validation_pairs(folder: Path, pairs: list[Pair]) -> None:
    write_pairs(folder / "pairs" / "validation.parquet", pairs, DIMENSIONS)


def copy_inputs(run: Path, folder: Path) -> Path:
    """What a run read, without what it made."""
    return shutil.copytree(run, folder, ignore=shutil.ignore_patterns(*MADE))


def environment(launch: str = "cpu.yaml") -> dict[str, str]:
    return os.environ | {"AMOPO_LAUNCH": f"configs/accelerate/{launch}"}


def run(folder: Path, *options: str, launch: str = "cpu.yaml", **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *options], cwd=folder, env=environment(launch), capture_output=True, text=True, **settings
    )


def start(folder: Path, launch: str = "cpu.yaml", **settings: Any) -> subprocess.Popen[str]:
    """The stage, not waited for."""
    return subprocess.Popen(COMMAND, cwd=folder, env=environment(launch), stderr=subprocess.PIPE, text=True, **settings)


def started(folder: Path, launch: str = "cpu.yaml", **settings: Any) -> subprocess.Popen[str]:
    """The stage, in training: it has said a step."""
    child = start(folder, launch, **settings)
    said = []
    for line in child.stderr:
        said.append(line)
        if line.startswith("train: step"):
            return child
    raise AssertionError("".join(said))


def finished(child: subprocess.Popen[str], status: int = 0) -> str:
    """What a started stage said until it ended, which it did as expected."""
    _, said = child.communicate(timeout=300)
    assert child.returncode == status, said
    return said


def digests(folder: Path) -> dict[str, str]:
    return {name: sha256((folder / name).read_bytes()).hexdigest() for name in OUTPUTS}


def checkpoints(folder: Path) -> list[Path]:
    """The whole ones, oldest first."""
    marks = folder.glob(".amopo/checkpoints/*/checkpoints/*/complete")
    return sorted((path.parent for path in marks), key=lambda path: int(path.name.rpartition("-")[2]))


def losses(folder: Path) -> list[float]:
    """Those that the run's history logged."""
    rows = [json.loads(line) for line in (folder / "report" / "history.jsonl").open()]
    return [row["loss"] for row in rows if "loss" in row]
