"""A long-lived process: started, waited for until it is ready, and ended with everything it started."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path
from threading import Event, Thread

import httpx

from tasks.database_url import without
from tasks.errors import OutsideError
from tasks.process import GRACE, child_environment, end_group

LAST_LINES = 20
"""Lines of a service's output that an error shows."""
_LOG_BYTES = 1_000_000
_LOGS_KEPT = 2


@dataclass(frozen=True)
class Service:
    """What is started, and how to know that it is ready."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Added to this process's; secrets are handed over here, for anybody on the machine can read a command line."""
    health: str | None = None
    """Address that answers with success once the service is ready; None: it says so in a line."""
    ready_line: str = ""
    """What the line begins with in which a service without `health` says that it is ready."""
    secrets: Sequence[str] = field(default=(), repr=False)
    """Texts that are hidden in what it says."""
    shown: bool = False
    """Whether what it says is shown as it comes; a server speaks of what no user needs."""
    grace: float = GRACE
    """Time between the request to end and the end by force [seconds]."""


class Running:
    """A service's process. Start it from the main thread: it ends with the thread that started it."""

    def __init__(self, service: Service, say: Callable[[str], None], log: Path | None = None) -> None:
        """Start it.

        Args:
            service: what to start.
            say: gets its lines, if they are to be shown.
            log: file that gets its lines with their times; kept small.
        """
        self.service = service
        self._say, self._log = say, _rotating(log) if log else None
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tasks.bound_process", str(os.getpid()), *service.command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=child_environment() | dict(service.environment),
            start_new_session=True,
        )
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._said_ready = Event()
        self._reader = Thread(target=self._read, name=service.name, daemon=True)
        self._reader.start()

    def wait_until_ready(self, limit: float) -> None:
        """Wait until it answers.

        Raises:
            OutsideError: it ended, or did not answer within `limit` seconds.
        """
        deadline = time.monotonic() + limit
        with httpx.Client(timeout=5.0, trust_env=False) as client:  # past any proxy
            while not self._is_ready(client):
                if self.ended:
                    raise OutsideError(f"{self.how_it_ended()} before it was ready{self.last_lines()}")
                if time.monotonic() > deadline:
                    raise OutsideError(f"{self.service.name} was not ready within {limit:g} s{self.last_lines()}")
                time.sleep(0.1)

    @property
    def ended(self) -> bool:
        """Whether the process is there no more."""
        return self.process.poll() is not None

    def how_it_ended(self) -> str:
        """The status of a process that has ended."""
        return f"{self.service.name} ended with status {self.process.returncode}"

    def last_lines(self) -> str:
        """What it said last, as the end of an error's message."""
        if self.ended:
            self._reader.join(timeout=1.0)  # a child of its own may hold the other end
        return f"; it said last:\n{chr(10).join(list(self._lines))}" if self._lines else " and said nothing"

    def stop(self) -> None:
        """End it and everything it started; nothing where it has ended altogether."""
        end_group(self.process, self.service.grace)
        self.process.wait()
        self._reader.join(timeout=1.0)
        if self._log:
            self._log.close()

    def _is_ready(self, client: httpx.Client) -> bool:
        if self.service.health is None:
            return self._said_ready.is_set()
        try:
            return client.get(self.service.health).is_success
        except httpx.TransportError:
            return False

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            line = without(self.service.secrets, line.rstrip())
            self._lines.append(line)
            if self._log:
                self._log.emit(logging.makeLogRecord({"msg": line}))
            if self.service.shown:
                self._say(line)
            if self.service.ready_line and line.startswith(self.service.ready_line):
                self._said_ready.set()


class _Log(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """On a full disk the line is lost; whose it was goes on."""

    def close(self) -> None:
        with suppress(OSError):  # as well
            super().close()


def _rotating(log: Path) -> RotatingFileHandler:
    log.parent.mkdir(parents=True, exist_ok=True)
    handler = _Log(log, maxBytes=_LOG_BYTES, backupCount=_LOGS_KEPT, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s"))
    return handler
