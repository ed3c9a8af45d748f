"""Prefect's temporary server, for a command on a machine where no other is configured.

Prefect would start one itself, but in the terminal's process group: Ctrl-C would end it before the flow could say that
it was interrupted, and a killed command would leave it behind.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS, temporary_settings

from flows.up import LOGS, say
from tasks.errors import OutsideError
from tasks.ports import free_port
from tasks.prefect_server import api_url, temporary_prefect_server
from tasks.service import Running

TEMPORARY_LOG = LOGS / "temporary-prefect.log"
_temporary: set[str] = set()
"""The servers that end with this process."""


def is_lasting() -> bool:
    """Whether the server that flows find now stays when this process ends, so that a person can answer there."""
    return PREFECT_API_URL.value() is not None and not is_temporary()


def is_temporary() -> bool:
    """Whether the server that flows find now was started by this process."""
    return PREFECT_API_URL.value() in _temporary


def starting_server() -> Callable[[], AbstractContextManager[Any]]:
    """Start a server where none is configured: it takes seconds, in which the caller may import what it needs.

    Returns:
        What waits until the server answers, and gives the context in which flows find it. It ends with this process.
    """
    if PREFECT_API_URL.value():
        return nullcontext
    port = free_port()
    running = Running(temporary_prefect_server(port), say, TEMPORARY_LOG)
    atexit.register(running.stop)  # after Prefect has sent its last logs, which it does at exit as well
    _temporary.add(api_url(port))
    return partial(_ready, running, api_url(port))


def _ready(running: Running, url: str) -> AbstractContextManager[Any]:
    limit = PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
    try:
        running.wait_until_ready(limit)
    except OutsideError as error:
        hint = "" if running.ended else "; raise PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"
        raise OutsideError(f"{error}{hint}") from None
    return temporary_settings({PREFECT_API_URL: url})
