"""A PostgreSQL server of Debian's package, in a folder of its own, for as long as the tests need it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

USER, PASSWORD = "reader", "s3cret/p@ss word"
ENCODED = "s3cret%2Fp%40ss%20word"
LACKING = "PostgreSQL's server is not installed: apt-get install postgresql"


@dataclass(frozen=True)
class Postgres:
    """A running server with one user, who needs the password."""

    port: int

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{USER}:{ENCODED}@127.0.0.1:{self.port}/postgres"

    def database(self, name: str) -> str:
        """The URL of a new database."""
        engine = create_engine(self.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return f"{self.url.removesuffix('/postgres')}/{name}"

    def cut(self) -> int:
        """End every connection but this one; how many there were."""
        engine = create_engine(self.url)
        with engine.begin() as connection:
            mine = "pid <> pg_backend_pid() AND backend_type = 'client backend'"
            ended = connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}"))
            count = len(ended.fetchall())
        engine.dispose()
        return count

    def execute(self, *statements: str) -> None:
        engine = create_engine(self.url)
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server on this machine's loopback. In CI a machine without PostgreSQL is a failure."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(LACKING)
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    try:
        yield from _served(programs[-1].parent, folder)
    finally:
        shutil.rmtree(folder)


def _served(programs: Path, folder: Path) -> Iterator[Postgres]:
    secret, data, port = folder / "secret", folder / "data", _free_port()
    secret.write_text(PASSWORD, encoding="utf-8")
    _give(folder, secret)
    _run(programs / "initdb", "-D", data, "-U", USER, "--pwfile", secret, "-A", "scram-sha-256", "-N")
    settings = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off -c timezone=America/New_York"
    _run(programs / "pg_ctl", "-D", data, "-l", folder / "log", "-w", "-o", settings, "start")
    try:
        yield Postgres(port)
    finally:
        _run(programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")


def _run(program: Path, *arguments: str | Path) -> None:
    """The server refuses to be run by root."""
    command: Sequence[str] = [str(part) for part in (program, *arguments)]
    user = "postgres" if os.geteuid() == 0 else None
    subprocess.run(command, check=True, user=user, cwd="/", stdout=subprocess.DEVNULL)


def _give(*paths: Path) -> None:
    if os.geteuid() == 0:
        for path in paths:
            shutil.chown(path, "postgres")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
