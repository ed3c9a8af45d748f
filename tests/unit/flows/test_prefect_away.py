"""Prefect's server does not answer: one message; another server's failure is left as it is."""

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.prefect_away import reaching_prefect
from tasks.errors import OutsideError


@pytest.fixture
def nobody(free_port_number: int) -> str:
    """An address at which nobody listens."""
    return f"http://127.0.0.1:{free_port_number}/api"


@pytest.fixture
def free_port_number() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_prefects_server_is_named(nobody: str) -> None:
    with (
        temporary_settings({PREFECT_API_URL: nobody}),
        pytest.raises(OutsideError, match=f"Prefect's server at {nobody} does not answer .*run the same command again"),
        reaching_prefect(),
    ):
        httpx.get(f"{nobody}/health")


def test_another_server_is_not_prefects(nobody: str) -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}),
        pytest.raises(httpx.ConnectError),
        reaching_prefect(),
    ):
        httpx.get(f"{nobody}/health")
