"""A Prefect server that is away for longer than Prefect tries again, said in one message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.settings import PREFECT_API_URL

from tasks.errors import OutsideError


@contextmanager
def reaching_prefect() -> Iterator[None]:
    """Says which server does not answer, and that nothing is lost; the block runs a flow.

    Raises:
        OutsideError: Prefect's server did not answer. Failures of other servers pass as they are.
    """
    try:
        yield
    except httpx.TransportError as error:
        url = PREFECT_API_URL.value()
        if not url or not _asked(error).startswith(url):
            raise
        raise OutsideError(
            f"Prefect's server at {url} does not answer ({error}); once it does, run the same command again: what is"
            " done is found done"
        ) from error


def _asked(error: httpx.TransportError) -> str:
    """The address that was asked; nothing where the error does not know it."""
    try:
        return str(error.request.url)
    except RuntimeError:
        return ""
