"""`amopo up` in a workspace, for as long as tests need it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from tests.flow.conftest import Finished, Workspace


@dataclass
class Up:
    """The supervisor and what it said when all was ready."""

    process: subprocess.Popen[str]
    said: dict[str, Any]

    def servers(self) -> dict[str, psutil.Process]:
        """The process of each server, by name; MLflow's has one below it that does the work."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # a killed one that nobody has waited for yet
                line = " ".join(child.cmdline())
                found["Prefect" if "prefect_process" in line else "MLflow" if "mlflow server" in line else line] = child
        return found

    def ended(self) -> tuple[int, str]:
        """The status with which it ended, and all that it said of how things went."""
        _, err = self.process.communicate(timeout=120)
        return self.process.returncode, err


def start_up(workspace: Workspace, *options: str, env: Mapping[str, str] | None = None) -> Up:
    """`amopo up` on free ports, once it is ready."""
    ports = ("--prefect-port", "0", "--mlflow-port", "0")
    process = workspace.start("up", "--json", *ports, *options, env=env)
    assert process.stdout is not None
    lines = []
    while (line := process.stdout.readline()) and line != "}\n":
        lines.append(line)
    assert line, process.communicate()
    return Up(process, json.loads("".join([*lines, line])))


def assert_none_left(workspace: Workspace) -> None:
    """Every process ends by itself soon; the limit only keeps a failure from waiting for ever."""
    deadline = time.monotonic() + 30
    while (left := workspace.processes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def json_of(finished: Finished) -> Any:
    """What a command that went well printed."""
    assert finished.code == 0, finished.err
    return finished.json
