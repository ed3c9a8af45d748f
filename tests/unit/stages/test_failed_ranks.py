"""What a user sees where a rank fails: one message and the right status, however many ranks there are."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from amopo_core.data.tables import Pair, write_pairs
from amopo_core.params_file import override
from amopo_core.stages import train

ROOT = Path(__file__).parents[3]
DIMENSIONS = ["helpfulness", "correctness", "instruction_following"]
STAGE = [sys.executable, "-m", "amopo_core.stages.train", "--pairs", "pairs", "--base", "base"]
STAGE += ["--policy", "policy", "--report", "report"]


@pytest.fixture
def workspace(tiny_policy_folder, tmp_path):
    """8 training pairs, 2 pairs a step, a line each step."""
    shutil.copytree(tiny_policy_folder, tmp_path / "base")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(ROOT / "tests/params.yaml", tmp_path)
    override(tmp_path / "params.yaml", ["train.batch_pairs=2", "train.log_every=1", "train.epochs=2"])
    scores = [dict.fromkeys(DIMENSIONS, score) for score in (5.0, 2.0)]
    rows = [
        Pair(f"{i:016x}", f"q{i}", [{"role": "user", "content": f"{i}?"}], f"yes {i}", "no", *scores) for i in range(10)
    ]
    write_pairs(tmp_path / "pairs" / "train.parquet", rows[:8], DIMENSIONS)
    write_pairs(tmp_path / "pairs" / "validation.parquet", rows[8:], DIMENSIONS)
    return tmp_path


def start(folder, launch="cpu.yaml", **settings):
    environment = os.environ | {"AMOPO_LAUNCH": f"configs/accelerate/{launch}"}
    return subprocess.Popen(STAGE, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, **settings)


def test_a_mistake_with_two_ranks_is_one_message(workspace):
    override(workspace / "params.yaml", ["train.max_length=8"])
    stage = start(workspace, "cpu-two-ranks.yaml")
    _, said = stage.communicate(timeout=180)

    assert stage.returncode == 2
    assert said.splitlines()[-1].startswith("error: no pair is left to train on (8 too_long); train.max_length is 8")
    assert said.count("no pair is left") == said.count("has no chat template") == 1
    assert "Traceback" not in said
    assert "FAILED" not in said


def test_the_run_says_how_fast_it_is_and_where_its_time_went(workspace):
    stage = start(workspace)
    _, said = stage.communicate(timeout=180)
    logs = workspace / "logs" / "train"
    summary = json.loads((logs / "summary.json").read_text())

    assert stage.returncode == 0, said
    assert [json.loads(line)["step"] for line in (logs / "speed.jsonl").open()] == list(range(1, 9))
    parts = ["data", "forward", "backward", "optimiser", "checkpoint", "validation", "other"]
    assert list(summary["seconds"]) == parts
    assert all(summary["seconds"][part] > 0 for part in parts)
    assert (summary["steps"], summary["pairs"]) == (8, 16)
    assert f"train:   {'backward':<10}" in said


def test_a_rank_that_the_kernel_takes_away_is_said(workspace):
    override(workspace / "params.yaml", ["train.epochs=500"])
    stage = start(workspace)
    for line in stage.stderr:
        if line.startswith("train: step"):
            break
    rank = psutil.Process(stage.pid).children(recursive=True)[-1]
    rank.send_signal(signal.SIGKILL)
    _, said = stage.communicate(timeout=60)

    assert stage.returncode == 1
    assert said.splitlines()[-1] == ("error: a rank ended without a word (exit status 1); its last lines are above")
    assert "Traceback" not in said


def test_a_rank_that_waits_for_one_that_has_failed_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "FAILED_SECONDS", 0.2)
    waiting = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (tmp_path / "failure.json").touch()
    status = train._wait(waiting, tmp_path / "failure.json")

    assert status == 1
    assert waiting.poll() in (-signal.SIGTERM, -signal.SIGKILL)


def test_a_rank_that_ends_by_itself_has_its_own_status(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])

    assert train._wait(ended, tmp_path / "failure.json") == 3


def test_what_the_terminal_sends_to_all_ends_two_ranks_with_a_checkpoint_and_no_traceback(workspace):
    override(workspace / "params.yaml", ["train.epochs=500", "train.checkpoint_every=10000"])
    stage = start(workspace, "cpu-two-ranks.yaml", start_new_session=True)
    for line in stage.stderr:
        if line.startswith("train: step"):
            break
    os.killpg(stage.pid, signal.SIGINT)
    _, said = stage.communicate(timeout=60)

    assert stage.returncode == 130
    assert "train: interrupted; the step under way is ended and saved" in said
    assert said.splitlines()[-1].endswith("which is saved; the same command goes on from there")
    assert "Traceback" not in said
    assert list(workspace.glob(".amopo/checkpoints/*/checkpoints/*/complete"))
