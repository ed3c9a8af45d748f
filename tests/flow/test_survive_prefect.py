"""Prefect's server is killed under a flow: restarted it costs nothing; away for good it costs the page and is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from prefect import flow
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_HOME,
    PREFECT_LOGGING_TO_API_ENABLED,
    temporary_settings,
)

from flows.prefect_away import reaching_prefect
from tasks.cancellation import ends_when_cancelled
from tasks.errors import OutsideError
from tasks.pages import keep_page


class Server:
    """A server on this machine's loopback that can be killed and started again."""

    def __init__(self, port: int, home: Path) -> None:
        self.url = f"http://127.0.0.1:{port}/api"
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        self._command = [*command, "--no-services", "--no-ui"]
        self._env = os.environ | {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            self._command, env=self._env, stdout=quiet, stderr=quiet, start_new_session=True
        )
        while True:
            assert self._process.poll() is None
            try:
                if httpx.get(f"{self.url}/health").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.1)

    def kill(self) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):  # killed already
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def server(free_port: int, tmp_path: Path) -> Iterator[Server]:
    """The server that flows find in this test; it answers at the start."""
    found = Server(free_port, tmp_path / "prefect")
    found.start()
    # logs that reach nobody would be offered again for minutes when the tests end
    settings = {PREFECT_API_URL: found.url, PREFECT_HOME: tmp_path / "prefect", PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings(settings):
        yield found
    found.kill()


@flow(name="restart")
@ends_when_cancelled
def with_a_page(between: Callable[[], None]) -> str:
    between()
    keep_page("a-page", "# What came out")
    return "done"


def artifacts(server: Server) -> list[str]:
    return [found["key"] for found in httpx.post(f"{server.url}/artifacts/filter", json={}).json()]


def test_a_flow_outlives_a_server_that_is_restarted_and_says_of_one_that_stays_away(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    def restart() -> None:
        server.kill()
        server.start()

    with reaching_prefect():
        assert with_a_page(restart) == "done"
    assert artifacts(server) == ["a-page"]
    states = [run["state"]["type"] for run in httpx.post(f"{server.url}/flow_runs/filter", json={}).json()]
    assert states == ["COMPLETED"]

    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        pytest.raises(OutsideError, match=f"Prefect's server at {server.url} does not answer"),
        reaching_prefect(),
    ):
        with_a_page(server.kill)
    assert "Prefect's server did not take the page a-page" in caplog.text
