"""The stage `train` as a process: ranks, crashes, a full disk, and what a user gets wrong."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from amopo_core.data.tables import Pair, write_pairs
from amopo_core.params_file import override

ROOT = Path(__file__).parents[3]
DIMENSIONS = ["helpfulness", "correctness", "instruction_following"]
SETTINGS = [
    "runtime.threads=1", "train.batch_pairs=4", "train.micro_batch_tokens=400", "train.max_length=120",
    "train.epochs=4", "train.log_every=2", "train.checkpoint_every=5", "train.validate_every=100",
]  # fmt: skip


def stage(folder):
    command = [sys.executable, "-m", "amopo_core.stages.train"]
    return [*command, "--pairs", "pairs", "--base", "base", "--policy", "policy", "--report", "report"]


def run(folder, launch="cpu.yaml", **options):
    environment = os.environ | {"AMOPO_LAUNCH": f"configs/accelerate/{launch}"}
    return subprocess.run(stage(folder), cwd=folder, env=environment, capture_output=True, text=True, **options)


def digest(path):
    return sha256(path.read_bytes()).hexdigest()


def make_pairs():
    scores = [dict.fromkeys(DIMENSIONS, score) for score in (5.0, 2.0)]
    return [
        Pair(f"{i:016x}", f"q{i}", [{"role": "user", "content": f"{i}?"}], f"yes {i}", "no" * (i % 3 + 1), *scores)
        for i in range(26)
    ]


@pytest.fixture
def workspace(tiny_policy_folder, tmp_path):
    """22 training pairs, 4 epochs of 6 steps, a checkpoint every 5 steps."""
    shutil.copytree(tiny_policy_folder, tmp_path / "base")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(ROOT / "tests/params.yaml", tmp_path)
    override(tmp_path / "params.yaml", SETTINGS)
    pairs = make_pairs()
    write_pairs(tmp_path / "pairs" / "train.parquet", pairs[:22], DIMENSIONS)
    write_pairs(tmp_path / "pairs" / "validation.parquet", pairs[22:], DIMENSIONS)
    return tmp_path


def test_killed_in_training_the_same_command_goes_on_to_the_same_bytes(workspace):
    undisturbed = run(workspace)
    assert undisturbed.returncode == 0, undisturbed.stderr
    outputs = ["policy/model.safetensors", "report/history.jsonl", "report/summary.json", "report/weights.png"]
    expected = {name: digest(workspace / name) for name in outputs}
    for folder in ("policy", "report", ".amopo"):
        shutil.rmtree(workspace / folder)

    child = subprocess.Popen(stage(workspace), cwd=workspace, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(workspace.glob(".amopo/checkpoints/*/checkpoints/*/complete")):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert not (workspace / "policy").exists()

    resumed = run(workspace)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from checkpoint-" in resumed.stderr
    assert {name: digest(workspace / name) for name in outputs} == expected
    assert not list(workspace.glob(".amopo/checkpoints/*/policy"))


@pytest.mark.parametrize("launch", ["cpu.yaml", "cpu-two-ranks.yaml"])
def test_sigterm_saves_a_checkpoint_and_the_same_command_goes_on_to_the_same_bytes(workspace, launch):
    assert run(workspace, launch).returncode == 0
    outputs = ["policy/model.safetensors", "report/history.jsonl"]
    expected = {name: digest(workspace / name) for name in outputs}
    for folder in ("policy", "report", ".amopo"):
        shutil.rmtree(workspace / folder)
    environment = os.environ | {"AMOPO_LAUNCH": f"configs/accelerate/{launch}"}
    child = subprocess.Popen(stage(workspace), cwd=workspace, env=environment, stderr=subprocess.PIPE, text=True)
    for line in child.stderr:
        if line.startswith("train: step"):
            break
    child.terminate()
    _, said = child.communicate(timeout=60)
    resumed = run(workspace, launch)

    assert child.returncode == 143
    assert "which is saved; the same command goes on" in said
    assert "going on from checkpoint-" in resumed.stderr
    assert {name: digest(workspace / name) for name in outputs} == expected


def test_resuming_a_run_of_other_data_exits_2_and_names_both_digests(workspace):
    assert run(workspace).returncode == 0
    folder = next(workspace.glob(".amopo/checkpoints/*"))
    write_pairs(workspace / "pairs" / "train.parquet", make_pairs()[:8], DIMENSIONS)
    command = [*stage(workspace), "--resume", str(folder)]
    stopped = subprocess.run(command, cwd=workspace, capture_output=True, text=True)

    assert stopped.returncode == 2
    assert "belongs to other inputs: data (then " in stopped.stderr
    assert "parameters" not in stopped.stderr


def test_stopped_between_the_policy_and_its_record_nothing_is_trained_again(workspace):
    """DVC removes the outputs of a stage that it has not recorded; the last checkpoint gives the same bytes at once."""
    assert run(workspace).returncode == 0
    outputs = [workspace / "policy" / "model.safetensors", workspace / "report" / "history.jsonl"]
    expected = [digest(path) for path in outputs]
    shutil.rmtree(workspace / "policy")
    shutil.rmtree(workspace / "report")
    again = run(workspace)

    assert "going on from checkpoint-24 of 24" in again.stderr
    assert "train: step" not in again.stderr
    assert [digest(path) for path in outputs] == expected


def test_other_parameters_begin_anew_and_remove_the_finished_run(workspace):
    assert run(workspace).returncode == 0
    override(workspace / "params.yaml", ["train.learning_rate=0.1"])
    other = run(workspace)

    assert "going on" not in other.stderr
    assert len(list(workspace.glob(".amopo/checkpoints/*"))) == 1


def test_fewer_validation_pairs_than_ranks(workspace):
    write_pairs(workspace / "pairs" / "validation.parquet", make_pairs()[:1], DIMENSIONS)
    two = run(workspace, launch="cpu-two-ranks.yaml", timeout=120)

    assert two.returncode == 0, two.stderr
    assert "validation/loss" in (workspace / "report" / "history.jsonl").read_text()


def test_two_gloo_ranks_train_together_to_the_weights_of_one(workspace):
    one = run(workspace)
    assert one.returncode == 0, one.stderr
    weights = load_file(workspace / "policy" / "model.safetensors")
    two = run(workspace, launch="cpu-two-ranks.yaml")
    assert two.returncode == 0, two.stderr

    assert '"ranks": 2' in (workspace / "report" / "summary.json").read_text()
    for name, tensor in load_file(workspace / "policy" / "model.safetensors").items():
        assert_close(tensor, weights[name], rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("limit", [60_000, 150_000], ids=["the policy does not fit", "the optimizer does not fit"])
def test_a_full_disk_at_checkpoint_time_exits_1(workspace, limit):
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    stopped = run(workspace, preexec_fn=small_files)

    assert stopped.returncode == 1
    assert "the disk is full" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not (workspace / "policy").exists()
    assert not list(workspace.glob(".amopo/checkpoints/*/checkpoints/*"))


def test_ctrl_c_exits_130(workspace):
    child = subprocess.Popen(stage(workspace), cwd=workspace, start_new_session=True, stderr=subprocess.PIPE, text=True)
    for line in child.stderr:
        if line.startswith("train: step"):
            break
    os.killpg(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=60)

    assert child.returncode == 130
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("launch", "said"),
    [("nowhere.yaml", "is not here"), ("../../params.yaml", "names no num_processes")],
)
def test_a_wrong_launch_file_exits_2(workspace, launch, said):
    stopped = run(workspace, launch=launch)

    assert stopped.returncode == 2
    assert said in stopped.stderr
    assert "Traceback" not in stopped.stderr


def test_degenerate_pairs_are_dropped_counted_and_listed_and_the_rest_is_trained_on(workspace):
    pairs = make_pairs()[:8]
    pairs[2] = replace(pairs[2], rejected=pairs[2].chosen)
    pairs[5] = replace(pairs[5], rejected="no" * 100)
    write_pairs(workspace / "pairs" / "train.parquet", pairs, DIMENSIONS)
    trained = run(workspace)

    assert trained.returncode == 0, trained.stderr
    assert "train: 2 of 8 pairs dropped (1 equal_responses, 1 response_too_long), see dropped.jsonl\n" in trained.stderr
    assert '"equal_responses": 1' in (workspace / "report" / "summary.json").read_text()
    assert [json.loads(line) for line in (workspace / "report" / "dropped.jsonl").open()] == [
        {"pair_id": pairs[2].pair_id, "reason": "equal_responses"},
        {"pair_id": pairs[5].pair_id, "reason": "response_too_long"},
    ]


def test_nothing_left_to_train_on_exits_2_and_says_why(workspace):
    override(workspace / "params.yaml", ["train.max_length=8"])
    stopped = run(workspace)

    assert stopped.returncode == 2
    assert "no pair is left to train on (22 too_long)" in stopped.stderr
    assert "train.max_length is 8" in stopped.stderr
