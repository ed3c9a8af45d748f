import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from tasks.tracking import flat, tracked_run

DIES = """
import os
from tasks.tracking import tracked_run
with tracked_run() as run:
    print(run, flush=True)
    os._exit(9)
"""


def test_nested_sections_become_dotted_names() -> None:
    nested = {"train": {"epochs": 1}, "views": {"generic": True}, "weights": {}, "seed": 0}

    assert dict(flat(nested)) == {"train.epochs": 1, "views.generic": True, "weights": {}, "seed": 0}


def test_a_run_that_was_killed_ends_with_the_next_one_of_its_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    store = f"sqlite:///{tmp_path}/mlflow.db"
    killed, other = (dies_in_a_run(folder, store) for folder in (here, elsewhere))
    monkeypatch.chdir(here)
    mlflow.set_tracking_uri(store)
    client = MlflowClient()

    with tracked_run() as run:
        statuses = [client.get_run(which).info.status for which in (killed, other, run)]

    assert statuses == ["KILLED", "RUNNING", "RUNNING"]
    assert client.get_run(run).info.status == "FINISHED"


def dies_in_a_run(workspace: Path, store: str) -> str:
    """The run of a process that ended without a word."""
    workspace.mkdir()
    env = os.environ | {"MLFLOW_TRACKING_URI": store, "PYTHONPATH": str(Path(__file__).parents[3])}
    died = subprocess.run([sys.executable, "-c", DIES], cwd=workspace, env=env, stdout=subprocess.PIPE, text=True)
    assert died.returncode == 9
    return died.stdout.strip()
