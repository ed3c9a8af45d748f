"""The global batch decides the result: ranks and micro-batches share it out, and change nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from amopo_core.data.tables import Pair, write_pairs
from amopo_core.params_file import override

ROOT = Path(__file__).parents[3]
DIMENSIONS = ["helpfulness", "correctness", "instruction_following"]
SETTINGS = [
    "train.batch_pairs=8", "train.max_length=160", "train.epochs=5", "train.learning_rate=0.0003",
    "train.log_every=1", "train.checkpoint_every=100", "train.validate_every=100",
]  # fmt: skip
WAYS = {
    "one rank, one micro-batch": ("cpu.yaml", 100_000),
    "one rank, a pair at a time": ("cpu.yaml", 1),
    "two ranks, one micro-batch each": ("cpu-two-ranks.yaml", 100_000),
    "two ranks, several unequal ones": ("cpu-two-ranks.yaml", 1000),
}


def pairs():
    """27 pairs of unequal lengths in batches of 8, 8, 8 and 3: 20 steps in 5 epochs."""
    scores = [dict.fromkeys(DIMENSIONS, score) for score in (5.0, 2.0)]
    return [
        Pair(f"{i:016x}", f"{i:016x}", [{"role": "user", "content": "?" * (i % 5 + 1)}], f"yes {i}" * (i % 4 + 1),
             "no" * (i % 7 + 1), *scores)
        for i in range(27)
    ]  # fmt: skip


def trained(folder, base, launch, tokens, precision):
    shutil.copytree(base, folder / "base")
    shutil.copytree(ROOT / "configs", folder / "configs")
    shutil.copy(ROOT / "tests/params.yaml", folder)
    override(folder / "params.yaml", [*SETTINGS, f"train.micro_batch_tokens={tokens}", f"train.precision={precision}"])
    write_pairs(folder / "pairs" / "train.parquet", pairs(), DIMENSIONS)
    write_pairs(folder / "pairs" / "validation.parquet", pairs()[:2], DIMENSIONS)
    command = [sys.executable, "-m", "amopo_core.stages.train", "--pairs", "pairs", "--base", "base"]
    done = subprocess.run(
        [*command, "--policy", "policy", "--report", "report"],
        cwd=folder, env=os.environ | {"AMOPO_LAUNCH": f"configs/accelerate/{launch}"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (folder / "report" / "history.jsonl").open()]
    return load_file(folder / "policy" / "model.safetensors"), [row["loss"] for row in rows if "loss" in row]


@pytest.mark.parametrize(("precision", "weights", "losses"), [("float64", 1e-8, 1e-7), ("float32", 1e-4, 1e-5)])
def test_twenty_steps_are_the_same_however_they_are_shared_out(
    tiny_policy_folder, tmp_path, precision, weights, losses
):
    ways = WAYS if precision == "float64" else dict(list(WAYS.items())[::3])
    results = {
        name: trained(tmp_path / name, tiny_policy_folder, launch, tokens, precision)
        for name, (launch, tokens) in ways.items()
    }
    expected, expected_losses = results.pop("one rank, one micro-batch")

    assert len(expected_losses) == 20
    for name, (found, found_losses) in results.items():
        assert found_losses == pytest.approx(expected_losses, rel=losses), name
        for key, tensor in found.items():
            assert_close(tensor, expected[key], rtol=0, atol=weights, msg=f"{name}: {key}")
