"""The environment of a command: what the user has set, then this project's servers, then the defaults."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.servers import Servers, claimed

SHOW = """
import json, os, sys
from flows.environment import set_defaults

set_defaults()
heavy = sorted({"prefect", "mlflow"} & set(sys.modules))
print(json.dumps([os.environ.get("PREFECT_API_URL"), os.environ["MLFLOW_TRACKING_URI"], heavy]))
"""
NAMES = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI")
HERE = Servers(1, "http://127.0.0.1:4200", "http://127.0.0.1:5000", elsewhere=False)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def shown(**given: str) -> list[object]:
    env = {name: value for name, value in os.environ.items() if name not in NAMES} | given
    return json.loads(subprocess.run([sys.executable, "-c", SHOW], env=env, check=True, capture_output=True).stdout)


def test_without_servers_there_are_the_defaults() -> None:
    assert shown() == [None, "sqlite:///mlflow.db", []]


def test_this_projects_servers_come_before_the_defaults_and_after_what_is_set() -> None:
    with claimed() as publish:
        publish(HERE)
        assert shown() == ["http://127.0.0.1:4200/api", "http://127.0.0.1:5000", []]
        assert shown(MLFLOW_TRACKING_URI="sqlite:///mine.db")[:2] == ["http://127.0.0.1:4200/api", "sqlite:///mine.db"]
