"""The stage `train` ended from outside, as a process: what it leaves, and what may go on with it."""

import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import psutil
import pytest

from amopo_core.data.tables import Pair, read_pairs, write_pairs
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
OUTPUTS = ["policy/model.safetensors", "report/history.jsonl", "report/summary.json"]


def run(folder, *options):
    return subprocess.run([*COMMAND, *options], cwd=folder, capture_output=True, text=True, timeout=300)


def started(folder):
    """The stage, in training."""
    child = subprocess.Popen(COMMAND, cwd=folder, stderr=subprocess.PIPE, text=True)
    said = []
    for line in child.stderr:
        said.append(line)
        if line.startswith("train: step 4"):
            return child
    raise AssertionError("".join(said))


def digests(folder):
    return {name: sha256((folder / name).read_bytes()).hexdigest() for name in OUTPUTS}


def checkpoints(folder):
    """The whole ones, oldest first."""
    marks = folder.glob(".amopo/checkpoints/*/checkpoints/*/complete")
    return sorted((path.parent for path in marks), key=lambda path: int(path.name.rpartition("-")[2]))


@pytest.fixture(scope="module")
def undisturbed(tiny_policy_folder, tmp_path_factory):
    """A finished run of 24 steps: 22 pairs, 4 epochs of 6."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(tiny_policy_folder, folder / "base")
    shutil.copytree(ROOT / "configs", folder / "configs")
    shutil.copy(ROOT / "tests/params.yaml", folder)
    override(folder / "params.yaml", SETTINGS)
    scores = [dict.fromkeys(DIMENSIONS, score) for score in (5.0, 2.0)]
    pairs = [
        Pair(f"{i:016x}", f"q{i}", [{"role": "user", "content": f"{i}?"}], f"yes {i}", "no" * (i % 3 + 1), *scores)
        for i in range(26)
    ]
    write_pairs(folder / "pairs" / "train.parquet", pairs[:22], DIMENSIONS)
    write_pairs(folder / "pairs" / "validation.parquet", pairs[22:], DIMENSIONS)
    done = run(folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def workspace(undisturbed, tmp_path):
    """The same before it was run."""
    shutil.copytree(
        undisturbed, tmp_path / "workspace", ignore=shutil.ignore_patterns("policy", "report", ".amopo", "logs")
    )
    return tmp_path / "workspace"


@pytest.fixture(scope="module")
def stopped(undisturbed, tmp_path_factory):
    """A run of the same that got SIGTERM."""
    folder = tmp_path_factory.mktemp("stopped") / "workspace"
    shutil.copytree(undisturbed, folder, ignore=shutil.ignore_patterns("policy", "report", ".amopo", "logs"))
    child = started(folder)
    child.terminate()
    child.communicate(timeout=60)
    assert child.returncode == 143
    return folder


@pytest.fixture
def interrupted(stopped, tmp_path):
    """A copy of the stopped run."""
    shutil.copytree(stopped, tmp_path / "interrupted")
    return tmp_path / "interrupted"


def run_folder(folder):
    return next((folder / ".amopo/checkpoints").iterdir()).relative_to(folder)


def test_kill_9_of_the_stage_leaves_no_process_and_the_same_command_goes_on(workspace, undisturbed):
    child = started(workspace)
    family = psutil.Process(child.pid).children(recursive=True)
    child.kill()
    child.wait()
    resumed = run(workspace)
    _, alive = psutil.wait_procs(family, timeout=60)

    assert len(family) >= 2
    assert not alive
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from checkpoint-" in resumed.stderr
    assert digests(workspace) == digests(undisturbed)


def test_sigterm_to_the_launcher_alone_is_waited_for_and_saves(workspace, undisturbed):
    child = started(workspace)
    launcher = psutil.Process(child.pid).children()[0]
    launcher.terminate()
    _, said = child.communicate(timeout=90)

    assert child.returncode == 143
    assert "which is saved; the same command goes on" in said
    assert len(checkpoints(workspace)) >= 1
    assert run(workspace).returncode == 0
    assert digests(workspace) == digests(undisturbed)


def test_a_torn_checkpoint_is_passed_over_and_removed(interrupted, undisturbed):
    *_, newest = checkpoints(interrupted)
    torn = newest.with_name("checkpoint-23")
    shutil.copytree(newest, torn)
    (torn / "complete").unlink()
    os.truncate(torn / "model.safetensors", 1000)
    resumed = run(interrupted)

    assert f"going on from {newest.name} of 24" in resumed.stderr
    assert not torn.exists()
    assert digests(interrupted) == digests(undisturbed)


def test_exactly_this_run_goes_on_where_nothing_differs(interrupted, undisturbed):
    resumed = run(interrupted, "--resume", str(run_folder(interrupted)))

    assert resumed.returncode == 0, resumed.stderr
    assert "going on from checkpoint-" in resumed.stderr
    assert digests(interrupted) == digests(undisturbed)


def test_other_data_are_trained_anew_and_the_unfinished_run_is_named(interrupted):
    table = interrupted / "pairs" / "train.parquet"
    write_pairs(table, read_pairs(table)[:8], DIMENSIONS)
    folder = run_folder(interrupted)
    refused = run(interrupted, "--resume", str(folder))
    anew = run(interrupted)

    assert refused.returncode == 2
    assert f"{folder} belongs to other inputs: data (then " in refused.stderr
    assert anew.returncode == 0, anew.stderr
    assert f"train: {folder} is an unfinished run of other inputs: data (then " in anew.stderr
    assert f"add --resume {folder} to go on with it, or remove the folder\n" in anew.stderr
    assert "going on" not in anew.stderr
    assert (interrupted / folder).exists()


def test_a_checkpoint_whose_mark_is_of_other_inputs_exits_2(interrupted):
    *_, newest = checkpoints(interrupted)
    mark = newest / "complete"
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"base": "0" * 16}))
    refused = run(interrupted)

    assert refused.returncode == 2
    assert f"{newest.name} belongs to other inputs: base (then {'0' * 16}, now " in refused.stderr
    assert "Traceback" not in refused.stderr


def test_what_is_no_run_folder_cannot_be_gone_on_with(workspace):
    refused = run(workspace, "--resume", "pairs")

    assert refused.returncode == 2
    assert "--resume: pairs is no run's folder" in refused.stderr
    assert not (workspace / "pairs" / "inputs.json").exists()


def test_a_loss_that_is_not_finite_exits_1_and_publishes_nothing(workspace):
    override(workspace / "params.yaml", ["train.learning_rate=1e30"])
    failed = run(workspace)

    assert failed.returncode == 1
    assert "is not finite, " in failed.stderr
    assert "Nothing of this step is kept." in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (workspace / "policy").exists()
