"""Addresses that a command found by itself and is about to serve itself: they name no server of somebody else."""

from __future__ import annotations

import os
from collections.abc import Mapping

from amopo_core.errors import UserError
from tasks.address import shown
from tasks.operation import OPERATION_FILE, read_operation
from tasks.servers import environment_here, left_behind

_MLFLOW = "MLFLOW_TRACKING_URI"


def is_left_behind() -> bool:
    """Whether commands look for MLflow where an `amopo up` that has ended had it, and nowhere else."""
    left = left_behind()
    return left is not None and os.environ.get(_MLFLOW) == left


def leave_out_own(own: Mapping[str, str], options: str) -> None:
    """Take out of the environment what an `amopo up` that has ended left there, and what operation.yaml says of own.

    What the user has set there stays.

    Args:
        own: the address that each server will have, by the variable that names it.
        options: how other ones are asked for, for messages.

    Raises:
        UserError: operation.yaml names another server.
    """
    if "PREFECT_API_URL" in environment_here():
        return  # they run: whoever would start others is told where
    configured = read_operation().servers.variables
    if is_left_behind():
        del os.environ[_MLFLOW]
        if _MLFLOW in configured:
            os.environ[_MLFLOW] = configured[_MLFLOW]
    for name, address in own.items():
        said = configured.get(name, "")
        if not said.startswith("http") or os.environ.get(name) != said:
            continue
        if said.rstrip("/").replace("//localhost:", "//127.0.0.1:") != address:
            raise UserError(
                f"{OPERATION_FILE}: servers.{name.lower()} names a server, {shown(said)}, which is none that would be"
                f" started here; use that one, or take the line out, or ask for its port with {options}"
            )
        del os.environ[name]
