"""Prefect's temporary server, for a command on a machine where no other is configured.

Prefect would start one itself, but in the terminal's process group: Ctrl-C would end it before the flow could say that
it was interrupted, and a killed command would leave it behind.
"""

from __future__ import annotations

import atexit
import socket
import subprocess
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import httpx
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS, temporary_settings

from tasks.errors import OutsideError
from tasks.process import child_environment, end_group

_temporary: set[str] = set()
"""The servers that end with this process."""


def is_lasting() -> bool:
    """Whether the server that flows find now stays when this process ends, so that a person can answer there."""
    return PREFECT_API_URL.value() not in {None, *_temporary}


def prefect_server() -> AbstractContextManager[Any]:
    """The context in which flows find a server: the configured one; where none is, one that ends with this process."""
    if PREFECT_API_URL.value():
        return nullcontext()
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.server_process", str(port)],
        stdin=subprocess.DEVNULL,
        text=True,
        env=child_environment() | {"PREFECT_UI_ENABLED": "false"},
        start_new_session=True,
    )
    atexit.register(end_group, process)  # after Prefect has sent its last logs, which it does at exit as well
    url = f"http://127.0.0.1:{port}/api"
    _temporary.add(url)
    _wait_until_healthy(process, f"{url}/health")
    return temporary_settings({PREFECT_API_URL: url})


def _wait_until_healthy(process: subprocess.Popen[str], url: str) -> None:
    limit = PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise OutsideError(
                f"Prefect's temporary server ended with status {process.returncode}; its reason is above"
            )
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise OutsideError(
        f"Prefect's temporary server did not answer within {limit} s;"
        " raise PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
