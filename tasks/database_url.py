"""URLs of databases: read, and never shown with what is secret in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote, quote_plus

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from amopo_core.errors import UserError

HIDDEN = "***"
"""Stands where a secret stood."""
UNCODED = (
    "holds a second `@`, or a `/`, `?` or `#` before its last `@`: where these belong to the user or the password,"
    ' percent-encode them (urllib.parse.quote(password, safe="") in Python); elsewhere, write `@` as %40'
)
"""Said before the URL is read, for what would be taken for a host's name could be the end of the password."""
EXPECTED_URL = (
    "holds no URL that SQLAlchemy knows; expected, for example, postgresql+psycopg://user:password@host/database"
    " (special characters of the password percent-encoded) or sqlite:///folder/file.db"
)


def read_url(given: str, holder: str) -> URL:
    """The URL, taken apart.

    Args:
        given: the URL as it came.
        holder: what it came by, which a message names instead of the URL.

    Raises:
        UserError: it is none.
    """
    if re.match(r"[^:/]+://(?!/).*[@/?#].*@", given, re.DOTALL):
        raise UserError(f"{holder} {UNCODED}")
    try:
        return make_url(given)
    except (ArgumentError, ValueError):
        raise UserError(f"{holder} {EXPECTED_URL}") from None


def sentence(error: DBAPIError, url: URL) -> str:
    """What the database said, without the secrets of the URL."""
    return without(secrets_of(url), " ".join(str(error.orig).split()))


def without(secrets: Sequence[str], text: str) -> str:
    """The text with every secret hidden."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def secrets_of(url: URL) -> list[str]:
    """The password and the options' values in the forms in which they could be seen, the longest first."""
    options = [value for values in _listed(url.query) for value in values]
    whole = [url.render_as_string(hide_password=hidden) for hidden in (False, True)]
    return forms(str(url.password or ""), *options, *whole)


def forms(*values: str) -> list[str]:
    """The values as they are and as a URL spells them, the longest first."""
    spelt = [
        (value, quote(value), quote_plus(value), quote(value, safe=""), quote(value, safe=" +")) for value in values
    ]
    return sorted({form for forms in spelt for form in forms if form}, key=len, reverse=True)


def _listed(query: Mapping[str, str | tuple[str, ...]]) -> Iterator[Sequence[str]]:
    for value in query.values():
        yield (value,) if isinstance(value, str) else value
