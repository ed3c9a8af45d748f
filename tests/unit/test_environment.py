import os
from pathlib import Path

import pytest

from amopo_core.errors import UserError
from flows.environment import require_operation, set_defaults

SERVERS = "servers: {mlflow_tracking_uri: 'http://here:5000', prefect_api_url: 'http://here:4200/api'}\n"


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    """A folder of its own, and an environment that is as before afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", {})


def test_without_settings_mlflow_keeps_its_runs_here():
    set_defaults()

    assert os.environ["MLFLOW_TRACKING_URI"] == "sqlite:///mlflow.db"
    assert "PREFECT_API_URL" not in os.environ


def test_the_settings_come_before_the_defaults_and_after_what_the_user_has_set():
    Path("operation.yaml").write_text(SERVERS)
    os.environ["PREFECT_API_URL"] = "http://mine:4200/api"
    set_defaults()

    assert os.environ["MLFLOW_TRACKING_URI"] == "http://here:5000"
    assert os.environ["PREFECT_API_URL"] == "http://mine:4200/api"


def test_a_mistake_is_said_once_a_command_is_known():
    Path("operation.yaml").write_text(SERVERS + "overlap: maybe\n")
    set_defaults()

    with pytest.raises(UserError, match=r"operation\.yaml:2: overlap"):
        require_operation()
