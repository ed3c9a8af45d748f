"""The stage `train` ended from outside, as a process: what it leaves, and what may go on with it."""

import json
import os
import shutil
import signal
import time

import psutil
import pytest

from amopo_core.data.tables import read_pairs
from amopo_core.params_file import override
from tests.unit.stages.training import (
    checkpoints,
    copy_inputs,
    digests,
    finished,
    run,
    start,
    started,
    write_training_pairs,
)


@pytest.fixture
def workspace(trained, tmp_path):
    """A finished run's folder before it was run."""
    return copy_inputs(trained, tmp_path / "workspace")


@pytest.fixture(scope="module")
def stopped(trained, tmp_path_factory):
    """A run of the same that got SIGTERM."""
    folder = copy_inputs(trained, tmp_path_factory.mktemp("stopped") / "workspace")
    child = started(folder)
    child.terminate()
    said = finished(child, status=143)
    assert "which is saved; the same command goes on" in said
    assert checkpoints(folder)
    return folder


@pytest.fixture
def interrupted(stopped, tmp_path):
    """A copy of the stopped run."""
    return shutil.copytree(stopped, tmp_path / "interrupted")


def run_folder(folder):
    return next((folder / ".amopo/checkpoints").iterdir()).relative_to(folder)


def test_killed_three_times_in_training_the_same_command_goes_on_to_the_same_bytes(workspace, trained):
    """All processes by SIGKILL, then the stage alone by SIGKILL, then the launcher alone by SIGTERM."""
    child = start(workspace, start_new_session=True)
    deadline = time.monotonic() + 120
    while not checkpoints(workspace):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    assert not (workspace / "policy").exists()

    child = started(workspace)
    family = psutil.Process(child.pid).children(recursive=True)
    child.kill()
    child.communicate()
    assert len(family) >= 2

    child = started(workspace)
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    psutil.Process(child.pid).children()[0].terminate()
    assert "which is saved; the same command goes on" in finished(child, status=143)
    assert checkpoints(workspace)

    resumed = run(workspace)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from checkpoint-" in resumed.stderr
    assert digests(workspace) == digests(trained)
    assert not list(workspace.glob(".amopo/checkpoints/*/policy"))


def test_exactly_this_run_goes_on_and_a_torn_checkpoint_is_passed_over_and_removed(interrupted, trained):
    *_, newest = checkpoints(interrupted)
    torn = newest.with_name("checkpoint-23")
    shutil.copytree(newest, torn)
    (torn / "complete").unlink()
    os.truncate(torn / "model.safetensors", 1000)
    resumed = run(interrupted, "--resume", str(run_folder(interrupted)))

    assert resumed.returncode == 0, resumed.stderr
    assert f"going on from {newest.name} of 24" in resumed.stderr
    assert not torn.exists()
    assert digests(interrupted) == digests(trained)


def test_other_data_are_trained_anew_and_the_unfinished_run_is_named(interrupted):
    write_training_pairs(interrupted, read_pairs(interrupted / "pairs" / "train.parquet")[:8])
    folder = run_folder(interrupted)
    refused = run(interrupted, "--resume", str(folder))
    anew = run(interrupted)

    assert refused.returncode == 2
    assert f"{folder} belongs to other inputs: data (then " in refused.stderr
    assert anew.returncode == 0, anew.stderr
    assert f"train: {folder} is an unfinished run of other inputs: data (then " in anew.stderr
    assert "with these again the same command goes on with it; else remove the folder\n" in anew.stderr
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
