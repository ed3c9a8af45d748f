"""Notifications: who is named in operation.yaml is told of failures, verdicts and promotions, through apprise."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from amopo_core.errors import UserError
from tasks.operation import Event, Notification, read_operation

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.flows import Flow

_IMPLIED: dict[Event, Event] = {"promotion": "verdict"}
"""Who wants every verdict wants to know of a promotion: one message says both."""
_LONGEST = 2000
"""Characters of a message, at most: some services refuse longer ones."""


def notify(event: Event, title: str, text: str) -> None:
    """Tell everybody who wants to know of the event. Never raises: what cannot be sent is a warning in the log.

    No message says more than the name under which an address is kept; the address itself holds secrets.
    """
    _tell(event, title, text, _log())


def tell_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Prefect's hook for a flow that failed or crashed; Prefect calls it with these very names."""
    from prefect.logging.loggers import flow_run_logger

    title = f"Retraining {flow_run.name} {(state.name or 'failed').lower()}"
    _tell("failure", title, state.message or "no reason was given", flow_run_logger(flow_run, flow))


def useless_addresses() -> list[str]:
    """A line for each environment variable of operation.yaml that is not set here or holds no address."""
    named = [each.url_env for each in read_operation().notifications if each.url_env]
    return [f"{name} {why}: nobody will be told there" for name in named if (why := _why_useless(os.environ.get(name)))]


def _tell(event: Event, title: str, text: str, log: Any) -> None:
    try:
        wanted = [each for each in read_operation().notifications if {event, _IMPLIED.get(event)} & set(each.events)]
    except UserError as error:
        log.warning("nobody is told of this %s: %s", event, error)
        return
    for each in wanted:
        if (why_not := _failure(each, title, text[:_LONGEST])) is None:
            log.info("told %s of this %s", each.name, event)
        else:
            log.warning("%s was not told of this %s: %s", each.name, event, why_not)


def _failure(target: Notification, title: str, text: str) -> str | None:
    """Why somebody could not be told; None where it was sent. apprise's own words may hold secrets."""
    try:
        address = _address(target)
        if why := _why_useless(address):
            return f"it {why}"
        import apprise

        with _silent("apprise", "urllib3"):
            sender = apprise.Apprise(address)
            return None if sender.notify(title=title, body=text) else "the service did not take the message"
    except Exception as error:  # a retraining does not fail for a message, whatever a service's client raises
        return f"{type(error).__name__} while it was sent"


def _why_useless(address: str | None) -> str | None:
    """What is wrong with an address, in words that do not repeat it; None for one that a message can be sent to."""
    if not address:
        return "is not set"
    import apprise

    with _silent("apprise"):
        is_known = apprise.Apprise().add(address)
    return None if is_known else "holds no address that apprise knows (https://appriseit.com lists them)"


@contextmanager
def _silent(*names: str) -> Iterator[None]:
    """Keeps libraries from logging addresses, which debugging would show and urllib3 shows where it tries again."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _address(target: Notification) -> str | None:
    if target.url_env:
        return os.environ.get(target.url_env)
    from prefect.blocks.system import Secret

    return str(Secret.load(str(target.secret_block)).get())  # type: ignore[union-attr]


def _log() -> Any:
    """The log of the run, or, outside of one, of the command."""
    from prefect import get_run_logger
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_logger

    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("amopo")
