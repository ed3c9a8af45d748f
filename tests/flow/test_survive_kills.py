"""kill -9 of dvc and of a stage under a run at work: nobody is left, the same command goes on. Flow: test_retrain."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.survival.command import Command

if TYPE_CHECKING:
    from tests.flow.conftest import Workspace

pytestmark = pytest.mark.flow


@pytest.fixture
def here(workspace: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the workspace in which one run has been promoted."""
    env = workspace.env | {"PREFECT_HOME": str(tmp_path / "prefect")}
    return type(workspace)(shutil.copytree(workspace.path, tmp_path / "here"), env)


def test_the_same_command_goes_on_after_dvc_and_after_the_stage_were_killed(here: Workspace) -> None:
    """And a second command, started meanwhile, is sent away. The training would last for hours: it cannot end first."""
    status, said = killed_in_training(here, "dvc", "retrain", "--set", "train.epochs=100000")
    assert status == 1, said
    assert "error: stage train: DVC was ended from outside (signal 9); run the same command again to go on" in said
    assert "Traceback" not in said

    status, said = killed_in_training(here, "stage", "retrain")
    assert status == 1, said
    assert "train: going on from checkpoint-" in said
    assert "error: stage train was killed from outside, or for want of memory; run the same command again" in said
    assert here.versions() == {"champion": "1", "challenger": "1"}


def ingested_meanwhile(here: Workspace) -> None:
    """Feedback that comes while a run is at work waits for the next one: the run's data do not change under it."""
    file = here.path.parent / "later.jsonl"
    file.write_text('{"prompt": "Why?", "response": "So.", "helpfulness": 4, "correctness": 4}\n' * 3)
    before = sorted((here.path / "data/feedback").rglob("*"))
    ended = here.amopo("ingest", str(file), "--source", "ratings")
    assert ended.code == 0, ended.err
    assert "a run is at work: data/inbox/ratings/later.jsonl waits for the next one" in ended.out
    assert sorted((here.path / "data/feedback").rglob("*")) == before
    assert (here.path / "data/inbox/ratings/later.jsonl").read_bytes() == file.read_bytes()


def killed_in_training(here: Workspace, role: str, *arguments: str) -> tuple[int, str]:
    """The exit status and the words of a command, one of whose processes is killed once training has logged a step."""
    before = here.trained_at()
    command = Command(here.start(*arguments))
    while here.trained_at() in (before, 0):
        assert command.process.poll() is None, command.said
        time.sleep(0.02)
    [process] = command.of_role(role)
    if role == "stage":
        second = here.amopo("retrain")
        assert second.code == 1
        assert f"another run is at work in this folder (process {command.process.pid})" in second.err
        ingested_meanwhile(here)
    process.send_signal(signal.SIGKILL)
    status = command.end()
    deadline = time.monotonic() + 60  # the ranks save first
    while (left := here.processes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
    return status, command.said
