"""A real Prefect server in a folder of its own, asked over HTTP what became of its runs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

LONG = 900
"""Seconds that only keep a failure from waiting for ever."""
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class PrefectServer:
    """What a test asks of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(timeout=60)

    def deployment(self, name: str) -> dict[str, Any]:
        return dict(self._got("GET", f"/deployments/name/{name}"))

    def ask_for_run(self, name: str) -> str:
        """The id of a run that is due now."""
        return str(self._got("POST", f"/deployments/{self.deployment(name)['id']}/create_flow_run", {})["id"])

    def runs(self) -> list[dict[str, Any]]:
        return list(self._got("POST", "/flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC"}))

    def state(self, run: str) -> dict[str, Any]:
        return dict(self._got("GET", f"/flow_runs/{run}")["state"])

    def log(self, run: str) -> str:
        chosen = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"}
        return "\n".join(line["message"] for line in self._got("POST", "/logs/filter", chosen))

    def ended(self, run: str) -> dict[str, Any]:
        """The last state of a run."""
        return until(lambda: found if (found := self.state(run))["type"] in ENDED else None)

    def logged(self, run: str, text: str) -> None:
        """Wait for a line in a run's log."""
        until(lambda: text in self.log(run))

    def _got(self, method: str, path: str, body: Any = None) -> Any:
        """Asked again while the server is busy (503: its SQLite file is locked), as Prefect's own client does."""

        def asked() -> httpx.Response | None:
            answer = self._client.request(method, f"{self.url}{path}", json=body)
            return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer

        answer = until(lambda: [found] if (found := asked()) is not None else None)[0]
        assert answer.is_success, answer.text
        return answer.json()


def until(find: Callable[[], Any]) -> Any:
    """What is found, once it is."""
    deadline = time.monotonic() + LONG
    while not (found := find()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.2)
    return found


@contextmanager
def prefect_server(folder: Path) -> Iterator[PrefectServer]:
    """A server with its data base in `folder`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env |= {"PREFECT_HOME": str(folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{port}/api"
            with httpx.Client() as client:
                until(lambda: _answers(client, url, process))
            yield PrefectServer(url)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(client: httpx.Client, url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None
    try:
        return client.get(f"{url}/health").is_success
    except httpx.TransportError:
        return False
