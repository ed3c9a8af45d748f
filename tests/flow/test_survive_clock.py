"""The wall clock jumps while a retraining is at work: nothing else happens for it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from bench.survival.command import Command
from bench.survival.state import batches, champion, digests
from tests.flow.clock import DAY, HOUR, Clock, clock_fixture  # noqa: F401 (a fixture)
from tests.flow.conftest import HISTORY
from tests.flow.running import assert_none_left, json_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flow.conftest import Workspace

pytestmark = pytest.mark.flow


@pytest.fixture
def here(workspace: Workspace, tmp_path: Path) -> Iterator[Workspace]:
    """A copy of the workspace in which one run has been promoted."""
    env = workspace.env | {"PREFECT_HOME": str(tmp_path / "prefect")}
    here = type(workspace)(shutil.copytree(workspace.path, tmp_path / "here"), env)
    yield here
    assert_none_left(here)


def test_a_day_forward_and_further_back_in_training_changes_no_byte(here: Workspace, clock: Clock) -> None:
    """The run begins an hour ahead, so that the last jump is back to before it began.

    Checkpoints are saved by the time alone: more of it than there is, by any clock but the wall's.
    """
    rows, before = batches(here.path), here.trained_at()
    settings = ("objective.beta=1.2", "train.checkpoint_every=100000", "train.checkpoint_minutes=600")
    clock.set(HOUR)
    command = Command(here.start("retrain", "--json", *options("--set", settings), env=clock.env))
    for steps, ahead in ((1, HOUR + DAY), (5, 0)):
        with standing_still(here, command, steps, before):
            clock.set(ahead)
    status = command.end()

    assert status == 0, command.said
    assert "Traceback" not in command.said
    version = json.loads(command.out)["version"]
    run = here.run_of(version)
    assert run.info.start_time > run.info.end_time  # the jumps did reach the run
    assert batches(here.path) == rows
    made = digests(here.path)
    again = here.dvc("repro", "--force", "--no-run-cache", "--single-item", "train", "evaluate")
    assert again.returncode == 0, again.stderr
    assert digests(here.path) == made

    clock.set(-HOUR)
    other = ({"1", version} - {champion(here)}).pop()
    json_of(here.amopo("promote", other, "--reason", "an hour earlier", "--json", env=clock.env))
    told = json_of(here.amopo("history", "--json"))
    assert champion(here) == told["champion"] == told["history"][-1]["version"] == other
    assert told["history"][-1]["from"] < told["history"][0]["from"]


@contextmanager
def standing_still(here: Workspace, command: Command, steps: int, before: int) -> Iterator[None]:
    """The training that the command began stands still once it has logged so many steps; goes on behind the block."""
    history = here.path / HISTORY
    while here.trained_at() in (before, 0) or history.read_text().count("\n") < steps:
        assert command.process.poll() is None, command.said
        time.sleep(0.01)
    [rank] = command.of_role("rank")
    rank.suspend()
    try:
        yield
    finally:
        rank.resume()


def options(name: str, values: tuple[str, ...]) -> list[str]:
    return [word for value in values for word in (name, value)]
