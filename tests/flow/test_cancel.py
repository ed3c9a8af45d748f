"""Runs are cancelled in Prefect, one at a terminal and one of `amopo serve`: both end like under SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
from mlflow import MlflowClient

from bench.survival.command import Command, role_of
from bench.survival.state import batches, unfinished_checkpoint
from tasks.ports import free_port
from tasks.prefect_server import api_url, prefect_database, prefect_server
from tasks.service import Running
from tests.flow.browser import CHROMIUM, browser
from tests.flow.prefect_server import PrefectServer, until

if TYPE_CHECKING:
    from tests.flow.conftest import Workspace

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def prefect(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """The server that `amopo up` starts, with its pages."""
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace.path)
        store = prefect_database(f"sqlite:///{tmp_path_factory.mktemp('prefect')}/prefect.db", "the test's")
        service = prefect_server(port, store)
    server = Running(service, print)  # from another folder: it is nobody who works in the workspace
    try:
        server.wait_until_ready(300)
        yield PrefectServer(api_url(port))
    finally:
        server.stop()


@pytest.fixture(scope="module")
def here(workspace: Workspace, prefect: PrefectServer) -> Workspace:
    """The workspace in which one run has been promoted, and whose commands find the server."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{workspace.env['PATH']}"
    env = workspace.env | {"PREFECT_API_URL": prefect.url, "PREFECT_RUNNER_POLL_FREQUENCY": "1", "PATH": path}
    return type(workspace)(workspace.path, env)


def test_a_run_at_a_terminal_ends_like_under_sigterm(here: Workspace, prefect: PrefectServer) -> None:
    versions, rows = here.versions(), batches(here.path)
    command = Command(here.start("retrain", "--set", "objective.beta=1.7"))
    with training_held(here, command.process):
        [run] = [run["id"] for run in prefect.runs()]
        send_cancel(prefect, run)
        until(lambda: not at_work(here, "dvc"))
        command.process.send_signal(signal.SIGTERM)  # somebody is impatient: the step is saved all the same
    status = command.end()

    assert status == 128 + signal.SIGTERM, command.said
    assert "cancelled in Prefect: saving what is done, and ending" in command.said
    assert "cancelled in Prefect; the same command goes on from what is done" in command.said
    assert "Traceback" not in command.said
    assert not here.processes()
    assert prefect.state(run)["type"] == "CANCELLED"
    assert unfinished_checkpoint(here.path)
    assert (here.versions(), batches(here.path)) == (versions, rows)
    assert last_run(here) == "KILLED"  # stopped, which is no failure


def test_a_run_of_amopo_serve_does_so_too_and_the_service_goes_on(
    here: Workspace, prefect: PrefectServer, tmp_path: Path
) -> None:
    """It goes on from what the first has saved, and is cancelled in its turn."""
    versions, saved = here.versions(), unfinished_checkpoint(here.path)
    with served(here) as (process, deployment):
        run = prefect.ask_for_run(deployment)
        with training_held(here, process):
            press_cancel(prefect, run, tmp_path)
            until(lambda: not at_work(here, "dvc"))
        ended = prefect.ended(run)
        until(lambda: not at_work(here, "stage", "launcher", "rank"))
        assert process.poll() is None

    assert ended["type"] == "CANCELLED"
    assert last_run(here) == "KILLED"
    assert ended["message"] != "Runner is shutting down."  # after which `amopo serve` would start it again
    prefect.logged(run, f"going on from {saved}")
    assert "tell_failure" not in prefect.log(run)
    assert unfinished_checkpoint(here.path)
    assert here.versions() == versions
    assert not here.processes()


def test_the_next_one_goes_on_from_there_to_the_same_bytes(here: Workspace) -> None:
    saved = unfinished_checkpoint(here.path)
    ended = here.amopo("retrain", "--json")
    lock = (here.path / "dvc.lock").read_bytes()
    undisturbed = here.dvc("repro", "--force", "--no-run-cache", "--single-item", "train")

    assert ended.code == 0, ended.err
    assert f"going on from {saved}" in ended.err
    assert undisturbed.returncode == 0, undisturbed.stdout + undisturbed.stderr
    assert "Running stage 'train'" in undisturbed.stdout
    assert "going on from" not in undisturbed.stdout + undisturbed.stderr
    assert (here.path / "dvc.lock").read_bytes() == lock


@contextmanager
def training_held(here: Workspace, process: subprocess.Popen[str]) -> Iterator[None]:
    """The training that a process started stands still within the block, after its first step: it cannot end first."""
    here.wait_for_training(process)
    [rank] = at_work(here, "rank")
    rank.suspend()
    try:
        yield
    finally:
        rank.resume()


@contextmanager
def served(here: Workspace) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`amopo serve` and its deployment, ended with SIGTERM."""
    process = here.start("serve")
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("serving: "), process.communicate()
    try:
        yield process, line.split()[1]
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
        assert process.returncode == 0, err


def press_cancel(prefect: PrefectServer, run: str, folder: Path) -> None:
    """As a person does; where there is no chromium, what its click would send.

    The present pages offer it for runs of a deployment alone.
    """
    if CHROMIUM is None and os.environ.get("CI") != "true":
        send_cancel(prefect, run)
        return
    with browser(folder) as page:
        page.open(f"{prefect.url.removesuffix('/api')}/v2/runs/flow-run/{run}", until="Running stage")
        page.click("Open menu")
        page.click("Cancel", kind="[role=menuitem]")
        page.click("Cancel Flow Run")
        until(lambda: prefect.state(run)["type"] != "RUNNING")


def send_cancel(prefect: PrefectServer, run: str) -> None:
    """What the page's button and `prefect flow-run cancel` send."""
    wish = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": True}
    httpx.post(f"{prefect.url}/flow_runs/{run}/set_state", json=wish).raise_for_status()


def at_work(here: Workspace, *roles: str) -> list[psutil.Process]:
    return [process for process in here.processes() if role_of(process) in roles]


def last_run(here: Workspace) -> str:
    """How MLflow says that the newest run ended."""
    client = MlflowClient(here.store)
    experiments = [each.experiment_id for each in client.search_experiments()]
    return str(client.search_runs(experiments, max_results=1)[0].info.status)
