"""The stage `train` as a process: ranks, a stop, a full disk, and what a user gets wrong."""

import json
import os
import resource
import shutil
import signal
from dataclasses import replace

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from amopo_core.params_file import override
from tests.unit.stages.training import (
    copy_inputs,
    digests,
    finished,
    losses,
    make_pairs,
    run,
    started,
    write_training_pairs,
    write_validation_pairs,
)


@pytest.fixture
def workspace(trained, tmp_path):
    """A finished run's folder before it was run."""
    return copy_inputs(trained, tmp_path / "workspace")


@pytest.fixture
def done(trained, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(trained, tmp_path / "done")


def test_sigterm_saves_a_checkpoint_of_two_ranks_and_the_same_command_goes_on_to_the_same_bytes(
    trained_by_two, workspace, tmp_path, monkeypatch
):
    """One rank: test_killed.py. Nothing is left among the temporary files either."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    child = started(workspace, "cpu-two-ranks.yaml")
    child.terminate()
    said = finished(child, status=143)
    resumed = run(workspace, launch="cpu-two-ranks.yaml")

    assert "which is saved; the same command goes on" in said
    assert "going on from checkpoint-" in resumed.stderr
    assert digests(workspace) == digests(trained_by_two)
    assert list(temporary.iterdir()) == []


def test_resuming_a_run_of_other_data_exits_2_and_names_both_digests(done):
    folder = next(done.glob(".amopo/checkpoints/*"))
    write_training_pairs(done, make_pairs()[:8])
    stopped = run(done, "--resume", str(folder))

    assert stopped.returncode == 2
    assert "belongs to other inputs: data (then " in stopped.stderr
    assert "parameters" not in stopped.stderr


def test_stopped_between_the_policy_and_its_record_nothing_is_trained_again(done, trained):
    """DVC removes the outputs of a stage that it has not recorded; the last checkpoint gives the same bytes at once."""
    shutil.rmtree(done / "policy")
    shutil.rmtree(done / "report")
    again = run(done)

    assert "going on from checkpoint-24 of 24" in again.stderr
    assert "train: step" not in again.stderr
    assert digests(done) == digests(trained)


def test_other_parameters_begin_anew_and_remove_the_finished_run(done):
    override(done / "params.yaml", ["train.learning_rate=0.1", "train.epochs=1"])
    other = run(done)

    assert other.returncode == 0, other.stderr
    assert "going on" not in other.stderr
    assert len(list(done.glob(".amopo/checkpoints/*"))) == 1


def test_fewer_validation_pairs_than_ranks(workspace):
    override(workspace / "params.yaml", ["train.epochs=1"])
    write_validation_pairs(workspace, make_pairs()[:1])
    two = run(workspace, launch="cpu-two-ranks.yaml", timeout=120)

    assert two.returncode == 0, two.stderr
    assert "validation/loss" in (workspace / "report" / "history.jsonl").read_text()


def test_two_gloo_ranks_train_together_to_the_weights_of_one(trained, trained_by_two):
    weights = load_file(trained / "policy" / "model.safetensors")

    assert '"ranks": 2' in (trained_by_two / "report" / "summary.json").read_text()
    assert len(losses(trained)) == 12
    assert losses(trained_by_two) == pytest.approx(losses(trained), rel=1e-5)
    for name, tensor in load_file(trained_by_two / "policy" / "model.safetensors").items():
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
    child = started(workspace, start_new_session=True)
    os.killpg(child.pid, signal.SIGINT)

    assert "Traceback" not in finished(child, status=130)


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
    override(workspace / "params.yaml", ["train.epochs=1"])
    write_training_pairs(workspace, pairs)
    trained = run(workspace)

    assert trained.returncode == 0, trained.stderr
    assert "train: 2 of 8 pairs dropped (1 equal_responses, 1 response_too_long), see dropped.jsonl\n" in trained.stderr
    assert '"equal_responses": 1' in (workspace / "report" / "summary.json").read_text()
    assert [json.loads(line) for line in (workspace / "report" / "dropped.jsonl").open()] == [
        {"pair_id": pairs[2].pair_id, "reason": "equal_responses"},
        {"pair_id": pairs[5].pair_id, "reason": "response_too_long"},
    ]
