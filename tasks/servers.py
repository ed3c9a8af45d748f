"""The servers of this project: what `amopo up` runs here, written down while it lives, found by every other command.

Read by each command at its start: nothing here may import Prefect or MLflow.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from tasks.errors import OutsideError

SERVERS = Path(".amopo/servers.json")
_CLAIM = 1.0
"""How long a claim is tried: a command that only looks holds the file for a moment [seconds]."""


@dataclass(frozen=True)
class Servers:
    """Where the servers are."""

    pid: int
    """Of the process that runs them; 0 where they are down."""
    prefect: str
    """Address of Prefect's pages."""
    mlflow: str
    """Address of MLflow's pages, which is its tracking URI too."""
    elsewhere: bool
    """Whether MLflow keeps its runs in another database than the one that commands use where no server runs."""

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to know that is to use them."""
        return {"PREFECT_API_URL": f"{self.prefect}/api", "MLFLOW_TRACKING_URI": self.mlflow}

    def as_json(self) -> dict[str, Any]:
        """What a program reads that started them."""
        return {"pid": self.pid, "prefect": self.prefect, "mlflow": self.mlflow, "environment": self.environment}


@contextmanager
def claimed() -> Iterator[Callable[[Servers], None]]:
    """The right to run this project's servers; what the block hands over is found by others until the block ends.

    The kernel lets go however this process ends.

    Raises:
        OutsideError: they run already.
    """
    SERVERS.parent.mkdir(exist_ok=True)
    with SERVERS.open("a+", encoding="utf-8") as file:
        if not _lock(file):
            raise OutsideError(_running_already(_read(file)))
        _retire(file)  # left by one that was killed
        try:
            yield lambda servers: _write(file, servers)
        finally:
            _retire(file)


def environment_here() -> Mapping[str, str]:
    """What this project's servers are reached by, for the environment; nothing where there are none.

    Where they are down and kept the runs in a database of their own, MLflow's address stays: another store would be
    empty, and a first version would be registered there.
    """
    try:
        file = SERVERS.open(encoding="utf-8")
    except OSError:
        return {}
    with file:
        found = _read(file)
        if found is None:
            return {}
        if found.pid and _is_held(file):
            return found.environment
        return {"MLFLOW_TRACKING_URI": found.mlflow} if found.elsewhere else {}


def left_behind() -> str | None:
    """MLflow's address, where the servers are down and kept the runs in a database of their own."""
    found = environment_here()
    return None if "PREFECT_API_URL" in found else found.get("MLFLOW_TRACKING_URI")


def _lock(file: TextIO) -> bool:
    deadline = time.monotonic() + _CLAIM
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)


def _is_held(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _read(file: TextIO) -> Servers | None:
    """What stands in the file; None where an `amopo up` has not come so far, or is of another version."""
    file.seek(0)
    try:
        return Servers(**json.loads(file.read()))
    except (ValueError, TypeError):
        return None


def _write(file: TextIO, servers: Servers) -> None:
    file.truncate(0)
    file.write(json.dumps(asdict(servers)))
    file.flush()


def _retire(file: TextIO) -> None:
    """Say that the servers are down; where they kept no runs of their own there is nothing to remember."""
    found = _read(file)
    if found and found.elsewhere:
        _write(file, replace(found, pid=0))
    else:
        file.truncate(0)


def _running_already(found: Servers | None) -> str:
    if found is None or not found.pid:
        return "another `amopo up` is starting in this folder; one is enough"
    return (
        f"`amopo up` runs in this folder already (process {found.pid}): Prefect at {found.prefect}, MLflow at"
        f" {found.mlflow}; end that one first (kill {found.pid}, or Ctrl-C where it runs)"
    )
