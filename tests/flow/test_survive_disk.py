"""The disk of everything is full to the last byte while a run trains: data, checkpoints, databases."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.survival.command import Command
from bench.survival.state import batches, digests
from tests.disk import disk_fixture, full  # noqa: F401 (a fixture)
from tests.flow.running import assert_none_left, json_of

if TYPE_CHECKING:
    from tests.flow.conftest import Workspace

pytestmark = pytest.mark.flow

CHANGED = ("--set", "objective.beta=1.2", "--set", "train.epochs=15", "--set", "train.checkpoint_every=20")


@pytest.mark.parametrize("disk", [300], indirect=True)
def test_it_is_said_in_one_message_and_the_next_run_goes_on_to_the_same_bytes(workspace: Workspace, disk: Path) -> None:
    env = workspace.env | {"PREFECT_HOME": str(disk / "prefect")}
    here = type(workspace)(shutil.copytree(workspace.path, disk / "here"), env)
    rows, before = batches(here.path), here.versions()
    command = Command(here.start("retrain", *CHANGED))
    here.wait_for_training(command.process)
    while not any(here.path.glob(".amopo/checkpoints/*/checkpoints/checkpoint-20")):
        assert command.process.poll() is None, command.said
        time.sleep(0.01)
    with full(disk):
        status = command.end()

    assert status == 1, command.said
    told = [line for line in command.said.splitlines() if line.startswith("error: ")]
    assert len(told) == 1, command.said
    assert told[0].startswith("error: stage train failed with exit status 1: the disk is full"), command.said
    assert "Traceback" not in command.said
    assert_none_left(here)
    assert (batches(here.path), here.versions()) == (rows, before)

    ended = Command(here.start("retrain", "--json"))
    assert ended.end() == 0, ended.said
    assert "going on from checkpoint-" in ended.said
    made = digests(here.path)
    assert here.dvc("repro", "--force", "--no-run-cache", "--single-item", "train", "evaluate").returncode == 0
    assert digests(here.path) == made
    assert json_of(here.amopo("status", "--json"))["challenger"]["version"] == "2"
