"""The stage `train` with adapters: what it publishes, and that a resumed run leaves the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from amopo_core.data.tables import Pair, write_pairs
from amopo_core.params_file import override
from amopo_core.policy import load_policy

ROOT = Path(__file__).parents[3]
DIMENSIONS = ["helpfulness", "correctness", "instruction_following"]
SETTINGS = [
    "runtime.threads=1", "train.batch_pairs=4", "train.micro_batch_tokens=400", "train.max_length=120",
    "train.epochs=4", "train.log_every=2", "train.checkpoint_every=5", "train.validate_every=100",
    "train.learning_rate=0.01",
]  # fmt: skip
COMMAND = [
    sys.executable, "-m", "amopo_core.stages.train",
    "--pairs", "pairs", "--base", "base", "--policy", "policy", "--report", "report",
]  # fmt: skip


def environment(launch="cpu.yaml"):
    return os.environ | {"AMOPO_LAUNCH": f"configs/accelerate/{launch}"}


def run(folder, launch="cpu.yaml"):
    return subprocess.run(COMMAND, cwd=folder, env=environment(launch), capture_output=True, text=True)


def adapters(folder, **settings):
    changed = {"rank": 4} | settings
    override(folder / "params.yaml", [*SETTINGS, f"train.adapter={json.dumps(changed)}"])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def workspace(tiny_policy_folder, tmp_path, monkeypatch):
    """22 training pairs, 4 epochs of 6 steps, a checkpoint every 5 steps."""
    shutil.copytree(tiny_policy_folder, tmp_path / "base")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(ROOT / "tests/params.yaml", tmp_path)
    scores = [dict.fromkeys(DIMENSIONS, score) for score in (5.0, 2.0)]
    pairs = [
        Pair(f"{i:016x}", f"q{i}", [{"role": "user", "content": f"{i}?"}], f"yes {i}", "no" * (i % 3 + 1), *scores)
        for i in range(26)
    ]
    write_pairs(tmp_path / "pairs" / "train.parquet", pairs[:22], DIMENSIONS)
    write_pairs(tmp_path / "pairs" / "validation.parquet", pairs[22:], DIMENSIONS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_killed_in_training_adapters_go_on_to_the_same_bytes(workspace):
    adapters(workspace, dropout=0.1)
    undisturbed = run(workspace)
    assert undisturbed.returncode == 0, undisturbed.stderr
    expected = contents(workspace / "policy")
    for folder in ("policy", "report", ".amopo"):
        shutil.rmtree(workspace / folder)

    child = subprocess.Popen(
        COMMAND, cwd=workspace, env=environment(), start_new_session=True, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(workspace.glob(".amopo/checkpoints/*/checkpoints/*/complete")):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()

    resumed = run(workspace)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from checkpoint-" in resumed.stderr
    assert contents(workspace / "policy") == expected
    assert {"adapter_config.json", "adapter_model.safetensors", "base.json"} <= expected.keys()
    assert "README.md" not in expected and "training_args.bin" not in expected
    trained = load_file(workspace / "policy/adapter_model.safetensors")
    assert all(weight.abs().sum() > 0 for weight in trained.values())


def test_merged_adapters_are_the_base_with_what_they_add(workspace):
    adapters(workspace)
    assert run(workspace).returncode == 0
    pinned = load_policy(Path("policy")).model.state_dict()
    adapters(workspace, merge=True)
    done = run(workspace)

    assert done.returncode == 0, done.stderr
    assert (workspace / "policy/config.json").is_file()
    assert not list((workspace / "policy").glob("adapter*"))
    for name, weight in load_policy(Path("policy")).model.state_dict().items():
        assert torch.equal(weight, pinned[name]), name


def test_two_ranks_recomputing_blocks_train_the_same_adapters(workspace):
    adapters(workspace)
    assert run(workspace).returncode == 0
    one = load_file(workspace / "policy/adapter_model.safetensors")
    override(workspace / "params.yaml", ["train.gradient_checkpointing=true"])
    done = run(workspace, "cpu-two-ranks.yaml")

    assert done.returncode == 0, done.stderr
    for name, weight in load_file(workspace / "policy/adapter_model.safetensors").items():
        assert_close(weight, one[name], rtol=1e-2, atol=1e-3, msg=name)


def test_an_unknown_layer_stops_with_those_there_are(workspace):
    adapters(workspace, target_modules=["query"])
    done = run(workspace)

    assert done.returncode == 2
    assert "train.adapter.target_modules: 'query' is no linear layer" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not find_spec("bitsandbytes"), reason="bitsandbytes is not installed")
def test_a_base_in_4_bits_trains(workspace):
    adapters(workspace, base_bits=4)
    done = run(workspace)

    assert done.returncode == 0, done.stderr
    assert load_policy(Path("policy")).model.dtype == torch.float32
