"""Prefect's server, on this machine alone: with pages and schedules, or a temporary one for a single command."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tasks.database import Database, database
from tasks.ports import page
from tasks.service import Service

DATABASE_VARIABLES = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")
"""Prefect's own names for the URL of its database, the present one and the old one."""
_HOME = Path(".amopo/prefect")
"""In the project and not in the user's home: each project's runs, schedules and artifacts are its own."""
_DRIVERS = {"postgresql": "asyncpg", "sqlite": "aiosqlite"}
_GRACE = 15.0


def prefect_database(given: str | None, option: str) -> Database:
    """The database that was given; else a file of the project.

    Raises:
        UserError: the URL is none.
    """
    _HOME.mkdir(parents=True, exist_ok=True)
    return database(given or f"sqlite:///{(_HOME / 'prefect.db').resolve()}", option, _DRIVERS)


def prefect_server(port: int, store: Database) -> Service:
    """What serves Prefect at the port; the URL of its database is in no command line."""
    return Service(
        name="Prefect",
        command=_command(port),
        environment=_environment(port, store),
        health=f"{api_url(port)}/health",
        secrets=store.secrets,
        grace=_GRACE,
    )


def temporary_prefect_server(port: int) -> Service:
    """What serves Prefect's interface alone for one command, over the same database."""
    given = next(filter(None, map(os.environ.get, DATABASE_VARIABLES)), None)
    store = prefect_database(given, DATABASE_VARIABLES[0])
    return Service(
        name="Prefect's temporary server",
        command=[*_command(port), "--temporary"],
        environment=_environment(port, store) | {"PREFECT_UI_ENABLED": "false"},
        health=f"{api_url(port)}/health",
        secrets=store.secrets,
    )


def api_url(port: int) -> str:
    """What PREFECT_API_URL is for a server at that port."""
    return f"{page(port)}/api"


def _command(port: int) -> list[str]:
    return [sys.executable, "-m", "tasks.prefect_process", str(port)]


def _environment(port: int, store: Database) -> dict[str, str]:
    home = _HOME.resolve()
    return {
        DATABASE_VARIABLES[0]: store.url,
        "PREFECT_API_URL": api_url(port),  # or the pages would ask whatever server the user's profile names
        "PREFECT_MEMO_STORE_PATH": str(home / "memo.toml"),  # which blocks this database has
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "pages"),  # not beside the package, which may be read-only
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    }
