"""Prefect's server does not answer, or refuses: one message; another server's failure is left as it is."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.prefect_away import reaching_prefect
from flows.scheduled import scheduled
from flows.serving import _server
from tasks.errors import OutsideError
from tasks.event import emit
from tasks.operation import Operation
from tasks.serving import SERVING, Service


@pytest.fixture
def nobody(free_port_number: int) -> str:
    """An address at which nobody listens."""
    return f"http://127.0.0.1:{free_port_number}/api"


@pytest.fixture
def free_port_number() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Refusing(BaseHTTPRequestHandler):
    """Is healthy, and does nothing of what it is asked."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status = 200 if self.path.endswith("/health") else self.server.status  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_prefects_server_is_named(nobody: str) -> None:
    with (
        temporary_settings({PREFECT_API_URL: nobody}),
        pytest.raises(OutsideError, match=f"Prefect's server at {nobody} does not answer .*run the same command again"),
        reaching_prefect(),
    ):
        httpx.get(f"{nobody}/health")


def test_what_prefect_could_not_be_told_is_said(nobody: str) -> None:
    """On a full disk the flow fails, and so does the server that is to note it."""

    def fails() -> None:
        try:
            raise OutsideError("stage train failed: the disk is full")
        except OutsideError:
            httpx.get(f"{nobody}/flow_runs")

    with (
        temporary_settings({PREFECT_API_URL: nobody}),
        pytest.raises(OutsideError, match=r"^stage train failed: the disk is full$") as caught,
        reaching_prefect(),
    ):
        fails()
    assert caught.value.__suppress_context__


def test_another_server_is_not_prefects(nobody: str) -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}),
        pytest.raises(httpx.ConnectError),
        reaching_prefect(),
    ):
        httpx.get(f"{nobody}/health")


@pytest.mark.parametrize(("status", "mend"), [(401, "set PREFECT_API_AUTH_STRING"), (500, ""), (503, "")])
def test_a_server_that_refuses_is_named_without_its_password(
    refusing: ThreadingHTTPServer, status: int, mend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked by a flow, by `amopo trigger`, by `amopo serve`."""
    monkeypatch.chdir(tmp_path)
    SERVING.parent.mkdir()
    refusing.status = status  # type: ignore[attr-defined]
    port = refusing.server_address[1]
    url = f"http://ann:s3cret@127.0.0.1:{port}/api"

    def flows_are_read() -> None:
        with get_client(sync_client=True) as client:
            client.read_flow_runs()

    def it_is_served() -> None:
        asyncio.run(Service(scheduled, Operation(), print).run(lambda: None, None))

    for asks in (flows_are_read, lambda: asyncio.run(emit("a test")), it_is_served):
        with (
            temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}),
            pytest.raises(OutsideError, match=f"Prefect's server at http://127.0.0.1:{port}/api does not") as caught,
            reaching_prefect(),
        ):
            asks()
        assert f"with status {status}" in str(caught.value)
        assert mend in str(caught.value)
        assert "s3cret" not in str(caught.value)
        assert caught.value.__suppress_context__


def test_the_address_that_is_said_holds_no_password(nobody: str, refusing: ThreadingHTTPServer) -> None:
    port = refusing.server_address[1]
    with temporary_settings({PREFECT_API_URL: f"http://ann:s3cret@127.0.0.1:{port}/api"}):
        assert _server() == f"http://127.0.0.1:{port}/api"
    with (
        temporary_settings({PREFECT_API_URL: nobody.replace("//", "//ann:s3cret@")}),
        pytest.raises(OutsideError, match=f"no Prefect server answers at {nobody}") as caught,
    ):
        _server()
    assert "s3cret" not in str(caught.value)
