"""MLflow's server, on this machine alone: pages, runs and versions, in the store that commands use without it."""

from __future__ import annotations

import os
import sys

from amopo_core.errors import UserError
from tasks.address import shown
from tasks.database import Database, database
from tasks.ports import LOOPBACK, page
from tasks.service import Service

STORE = "sqlite:///mlflow.db"
"""Where runs and versions are kept when nothing else is said."""
_DRIVERS = {"postgresql": "psycopg", "sqlite": ""}
_ARTIFACTS = "./mlruns"
"""Where a new experiment's files lie: as without a server, so that they are found with and without it."""
_GRACE = 15.0


def mlflow_database(given: str | None, option: str) -> Database:
    """The database that was given; else the one that commands use without a server.

    Raises:
        UserError: the URL is none, or commands use a server that somebody else runs.
    """
    if given:
        return database(given, option, _DRIVERS)
    uri = os.environ.get("MLFLOW_TRACKING_URI", STORE)
    if uri.startswith("http"):
        raise UserError(f"MLFLOW_TRACKING_URI names a server; its pages are at {mlflow_pages()}. Unset it to start one")
    return database(uri, "MLFLOW_TRACKING_URI", _DRIVERS)


def is_elsewhere(store: Database) -> bool:
    """Whether commands would look for their runs in another database if no server ran."""
    return store.where != mlflow_database(None, "").where


def mlflow_pages() -> str | None:
    """The address of MLflow's pages, without any password; None where no server runs."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    return shown(uri).rstrip("/") if uri.startswith(("http://", "https://")) else None


def mlflow_server(port: int, store: Database) -> Service:
    """What serves MLflow at the port; the URL of its database is in no command line."""
    environment = {
        "MLFLOW_BACKEND_STORE_URI": store.url,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT", _ARTIFACTS),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # processes for evaluations by judges, which nothing here uses
        "MLFLOW_UVICORN_OPTS": "--log-level warning --timeout-graceful-shutdown 5",
    }
    return Service(
        name="MLflow",
        command=[sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"],
        environment=environment,
        health=f"{page(port)}/health",
        secrets=store.secrets,
        grace=_GRACE,
    )
