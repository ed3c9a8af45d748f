"""Rows of a SQL query, streamed and read-only. The database's URL stands in the environment and is never shown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, bindparam, column, create_engine, func, or_, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool
from sqlalchemy.sql import Executable
from sqlalchemy.sql.elements import TextClause

from amopo_core.config import SqlFetch
from amopo_core.data.reading import Row, json_value
from amopo_core.errors import UserError
from tasks.database_url import EXPECTED_URL, read_url, sentence
from tasks.errors import OutsideError

_QUOTED = r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|--[^\n]*|/\*.*?\*/"""
"""What SQL does not read as words: texts, quoted names and comments."""
_WATERMARK = r"(?<![:\w]):watermark\b"
_ROWS_AT_ONCE = 1000
_CONNECT_SECONDS = 10
_READ_ONLY = {"postgresql": "SET TRANSACTION READ ONLY", "sqlite": "PRAGMA query_only = ON"}
"""Said first, so that the database itself refuses to write."""
_SQLITE_MISTAKES = ("SQLITE_ERROR", "SQLITE_READONLY")
"""SQLite has one exception for a wrong query and for a broken file; the codes of a wrong query."""


def rows(fetch: SqlFetch, since: Any | None) -> Iterator[Row]:
    """The rows of the query as JSON values, a thousand at once in memory; `line` is the row's number in the answer.

    With `watermark`, rows as high as `since` and higher. As high: another transaction may have committed a row of the
    very same value after the last fetch, and `>` would lose it for ever; and rows without a value come each time. The
    store leaves out the rows it knows, so that none is there twice. A query that mentions `:watermark` is run as it is.

    Args:
        fetch: where the rows come from.
        since: the highest value of the watermark taken so far; None: everything is new.

    Raises:
        UserError: the variable or its URL is missing or wrong, or the query is: the database's own sentence says how.
        OutsideError: the database cannot be reached or broke off. No message holds the URL or its password.
    """
    statement = _statement(fetch, since)
    url = _url(fetch.url_env)
    with _failing_without_credentials(fetch, url), closing(_connection(fetch, url)) as connection:
        yield from _checked(fetch.watermark, since, _answers(connection, statement, since))


def count_new(fetch: SqlFetch, since: Any | None) -> int | None:
    """How many rows of the query lie above the watermark, counted by the database; None where no watermark tells.

    Raises:
        UserError, OutsideError: as of `rows`.
    """
    if fetch.watermark is None:
        return None
    statement, url = _statement(fetch, since), _url(fetch.url_env)
    answer = statement.columns(column(fetch.watermark)) if isinstance(statement, TextClause) else statement
    counted = select(func.count()).select_from(answer.subquery("counted"))  # type: ignore[attr-defined]
    if since is not None:  # not `>=`: the rows as high as the watermark are known, all but the latest commits
        counted = counted.where(column(fetch.watermark) > bindparam("watermark"))
    with _failing_without_credentials(fetch, url), closing(_connection(fetch, url)) as connection:
        _only_read(connection)
        return int(connection.execute(counted, {"watermark": since}).scalar_one())


def _answers(connection: Connection, statement: Executable, since: Any | None) -> Iterator[Row]:
    _only_read(connection)
    result = connection.execution_options(stream_results=True, yield_per=_ROWS_AT_ONCE).execute(
        statement, {"watermark": since}
    )
    names = list(result.keys())
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two columns of the query are named {repeated[0]!r}; rename one with AS")
    for number, values in enumerate(result, start=1):
        yield Row(number, dict(zip(names, map(_json, values), strict=True)))


def _only_read(connection: Connection) -> None:
    if read_only := _READ_ONLY.get(connection.dialect.name):
        connection.execute(text(read_only))


def _checked(watermark: str | None, since: Any | None, answers: Iterator[Row]) -> Iterator[Row]:
    """The rows, once their watermarks are found to have an order: all of them, and `since`, are of one kind."""
    kinds = _kinds(since)
    for row in answers:
        if watermark is not None:
            if watermark not in row.fields:
                raise UserError(_without_column(watermark))
            kinds |= _kinds(row.fields[watermark])
            if len(kinds) > 1:
                raise UserError(f"the column {watermark!r} holds {' and '.join(sorted(kinds))}; expected one of them")
        yield row


def _kinds(value: Any) -> set[str]:
    """What a watermark is; nothing where the row has none."""
    if value is None:
        return set()
    if isinstance(value, str | float | int):
        return {"texts" if isinstance(value, str) else "numbers"}
    raise UserError(f"`watermark` names a column that holds {value!r}; expected numbers, moments or texts")


def _json(value: Any) -> Any:
    """The value in JSON's types; moments in UTC, so that their texts sort as they do; bytes that are no text as hex."""
    if isinstance(value, datetime) and value.tzinfo:
        return str(value.astimezone(UTC))
    if isinstance(value, bytes | memoryview):
        return _text_or_hex(bytes(value))
    return json_value(value)


def _text_or_hex(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()


def _statement(fetch: SqlFetch, since: Any | None) -> Executable:
    """The query as it is, or what it selects from the watermark on, lowest first."""
    query = fetch.query.strip().removesuffix(";")
    words = re.sub(_QUOTED, " ", query, flags=re.DOTALL)
    if ";" in words or not re.match(r"\s*(select|with)\b", words, re.IGNORECASE):
        raise UserError(f"query begins with {words[:40].strip()!r}; expected one statement, SELECT or WITH … SELECT")
    mentioned = re.search(_WATERMARK, words) is not None
    if mentioned and not fetch.watermark:
        raise UserError("the query mentions :watermark; name its column as `watermark`, or take it out of the query")
    bound = text(_only_watermark_bound(query) + "\n")  # the line's end closes a comment
    if mentioned or fetch.watermark is None:
        return bound
    answer = bound.columns(column(fetch.watermark)).subquery("q")
    mark = answer.c[fetch.watermark]
    everything: Select[Any] = select(text("q.*")).select_from(answer).order_by(mark)
    return everything if since is None else everything.where(or_(mark >= bindparam("watermark"), mark.is_(None)))


def _only_watermark_bound(query: str) -> str:
    """The query in SQLAlchemy's spelling, where every other colon (of a cast, in a text) stays a colon."""
    parts = rf"(?P<bound>{_WATERMARK})|{_QUOTED}|:"
    return re.sub(parts, lambda part: part[0] if part["bound"] else part[0].replace(":", r"\:"), query, flags=re.DOTALL)


def _url(variable: str) -> URL:
    given = os.environ.get(variable)
    if not given:
        raise UserError(f"the environment variable {variable} is not set; set it to the database's SQLAlchemy URL")
    return read_url(given, variable)


def _connection(fetch: SqlFetch, url: URL) -> Connection:
    backend = url.get_backend_name()
    if backend == "sqlite" and url.database and not url.query and not Path(url.database).exists():
        raise UserError(f"there is no SQLite file where {fetch.url_env} says; check its path")  # it would be created
    patience = {"connect_timeout": _CONNECT_SECONDS}
    options = patience if backend == "postgresql" and "connect_timeout" not in url.query else {}
    try:
        return create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=options).connect()
    except NoSuchModuleError:
        raise UserError(f"{fetch.url_env} {EXPECTED_URL}") from None
    except ModuleNotFoundError as error:
        said = f"{fetch.url_env} needs the database driver {error.name}; install it (pip install {error.name})"
        raise UserError(said) from None
    except (TypeError, ValueError):
        raise UserError(f"{fetch.url_env} has an option that the database's driver does not know") from None
    except DBAPIError as error:
        raise OutsideError(
            f"the database that {fetch.url_env} names cannot be reached: {sentence(error, url)}\n"
            "Once it answers, run the same command again: nothing of this fetch was stored."
        ) from None


@contextmanager
def _failing_without_credentials(fetch: SqlFetch, url: URL) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if _is_mistake(error):
            raise UserError(_refusal(fetch, sentence(error, url))) from None
        raise OutsideError(
            f"the database that {fetch.url_env} names broke off: {sentence(error, url)}\n"
            "Run the same command again: nothing of this fetch was stored."
        ) from None


def _refusal(fetch: SqlFetch, said: str) -> str:
    """What to say of a wrong query; `q` is the name that `_statement` gives its answer."""
    if fetch.watermark is not None and f"q.{fetch.watermark}" in said:
        return _without_column(fetch.watermark)
    return f"the database refuses the query: {said}"


def _without_column(watermark: str) -> str:
    return f"the query gives no column {watermark!r}; select what `watermark` names"


def _is_mistake(error: DBAPIError) -> bool:
    """Whether the query is wrong, rather than the database unwell."""
    if error.connection_invalidated:
        return False
    code = getattr(error.orig, "sqlite_errorname", None)
    return code in _SQLITE_MISTAKES if code else type(error).__name__ != "OperationalError"
