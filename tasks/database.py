"""Databases of the servers: a URL with the driver that the server works with; whether it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import URL, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from amopo_core.errors import UserError
from tasks.database_url import EXPECTED_URL, forms, read_url, sentence
from tasks.errors import OutsideError

_CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Database:
    """Where a server keeps what it knows."""

    given: URL = field(repr=False)
    driver: str
    """What the server reaches it with; empty for the usual one."""

    @property
    def url(self) -> str:
        """As the server wants it, password included."""
        url = self.given.set(drivername=f"{self.kind}+{self.driver}" if self.driver else self.kind)
        if self.driver == "asyncpg" and "sslmode" in url.query:  # libpq's word, which asyncpg has another for
            url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": url.query["sslmode"]})
        return url.render_as_string(hide_password=False)

    @property
    def kind(self) -> str:
        """The kind of database, such as postgresql."""
        return self.given.get_backend_name()

    @property
    def where(self) -> str:
        """Which database it is, without user and password."""
        if self.kind == "sqlite":
            return f"sqlite:///{self.given.database}"
        return f"{self.kind}://{self.given.host or 'localhost'}:{self.given.port or 5432}/{self.given.database}"

    @property
    def secrets(self) -> list[str]:
        """The password in the forms in which it could be seen, the longest first."""
        return forms(str(self.given.password or ""))


def database(given: str, holder: str, drivers: Mapping[str, str]) -> Database:
    """The database that a URL names.

    Args:
        given: the URL, with any driver or none.
        holder: what the URL came by, for messages; the URL itself is never in one.
        drivers: the driver that the server works with, by the kind of database.

    Raises:
        UserError: it is no URL of a database, or of a kind that is not known here.
    """
    url = read_url(given.strip().replace("postgres://", "postgresql://", 1), holder)
    kind = url.get_backend_name()
    if kind not in drivers or not url.database:
        raise UserError(f"{holder} names {'no' if kind in drivers else 'another kind of'} database; it {EXPECTED_URL}")
    return Database(url, drivers[kind])


def require_usable(prefect: Database, mlflow: Database) -> None:
    """Refuse one database for both servers, and one that does not answer, before a server fails over it.

    Raises:
        UserError: it is one: each server keeps its state of migration in a table of the same name.
        OutsideError: one does not let us in.
    """
    if prefect.where == mlflow.where:
        raise UserError(
            f"Prefect and MLflow were both given the database {mlflow.where}; each needs one of its own"
            " (CREATE DATABASE prefect; CREATE DATABASE mlflow)"
        )
    for store in (prefect, mlflow):
        if store.kind == "postgresql":
            _connect(store)


def _connect(store: Database) -> None:
    url = store.given.set(drivername="postgresql+psycopg")
    patience = {} if "connect_timeout" in url.query else {"connect_timeout": _CONNECT_SECONDS}
    try:
        create_engine(url, poolclass=NullPool, connect_args=patience).connect().close()
    except DBAPIError as error:
        raise OutsideError(f"the database {store.where} cannot be reached: {sentence(error, url)}") from None
