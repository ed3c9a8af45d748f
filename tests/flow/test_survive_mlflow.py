"""MLflow's server is away when a training has ended: the run waits for it, as long as it is told to."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from amopo_core.errors import UserError
from tasks.waiting import WAIT, wait_for_mlflow

log = logging.getLogger(__name__)


@pytest.fixture
def away(free_port: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """The port of a server that does not run."""
    mlflow.set_tracking_uri(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return free_port


def test_the_run_goes_on_once_the_server_is_back(
    away: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(WAIT, "300")
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--artifacts-destination", str(tmp_path)]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *store, "--port", str(away), "--workers", "1"],
        cwd=tmp_path,
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for_mlflow(log)
        assert MlflowClient().search_experiments()
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert caplog.text.count("waiting up to 300 s for MLflow at http://127.0.0.1") == 1


@pytest.mark.usefixtures("away")
def test_without_time_to_wait_it_comes_back_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(WAIT, "0")
    wait_for_mlflow(log)

    assert "waiting" not in caplog.text


@pytest.mark.parametrize("said", ["soon", "-1", "inf", "nan"])
def test_what_is_no_time_is_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WAIT, said)

    with pytest.raises(UserError, match="expected a number of seconds"):
        wait_for_mlflow(log)
