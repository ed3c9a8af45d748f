"""A Prefect server that is away for longer than Prefect tries again, or refuses what it is asked, in one message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.settings import PREFECT_API_URL

from amopo_core.errors import UserError
from flows.server import TEMPORARY_LOG, is_temporary
from tasks.address import quoted, shown
from tasks.errors import OutsideError

_NOT_LET_IN = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)


@contextmanager
def reaching_prefect() -> Iterator[None]:
    """Says which server did not do what it was asked, and that nothing is lost; the block runs a flow, or serves one.

    Raises:
        OutsideError: Prefect's server did not answer, or with an error. Failures of other servers pass as they are.
        UserError, OutsideError: what the flow failed of where Prefect could not be told so: a full disk is both.
    """
    try:
        yield
    except (UserError, OutsideError):
        raise
    except (httpx.HTTPError, RuntimeError, ValueError, ExceptionGroup) as raised:
        url, error = PREFECT_API_URL.value(), _request_behind(raised)
        if error is None or not url or not _asked(error).startswith(str(httpx.URL(url)).rstrip("/")):
            raise
        if (own := _own_behind(raised)) is not None:
            raise own from None
        told = f"; what it said last is in {TEMPORARY_LOG}" if is_temporary() else ""
        raise OutsideError(
            f"Prefect's server at {shown(url)} does not answer{_how(error)} ({quoted(error, url, 300)}){told}; once it"
            " does, run the same command again: what is done is found done"
        ) from None  # Prefect's log shows causes, and this one may repeat a password


def _request_behind(error: BaseException | None) -> httpx.HTTPError | None:
    """The failed request that an error is or comes of: Prefect wraps some, and task groups wrap all."""
    while error is not None and not isinstance(error, httpx.HTTPError):
        hidden = error.__suppress_context__
        found = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
        error = found or (None if hidden else error.__context__)
    return error


def _own_behind(error: BaseException | None) -> UserError | OutsideError | None:
    """The failure that Prefect was being told of when its server failed."""
    while error is not None and not isinstance(error, UserError | OutsideError):
        error = error.__cause__ or error.__context__
    return error


def _how(error: httpx.HTTPError) -> str:
    """What it did instead, and how to mend it, where that is known."""
    if not isinstance(error, httpx.HTTPStatusError):
        return ""
    status = error.response.status_code
    mend = "; set PREFECT_API_AUTH_STRING or PREFECT_API_KEY" if status in _NOT_LET_IN else ""
    return f" as it should, but with status {status}{mend}"


def _asked(error: httpx.HTTPError) -> str:
    """The address that was asked; nothing where the error does not know it."""
    try:
        return str(error.request.url)
    except RuntimeError:
        return ""
