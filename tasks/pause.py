"""Prefect's pause: a flow run that waits for a person's answer to a form on its page."""

from __future__ import annotations

import math
import os
from threading import Timer
from typing import Literal
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.exceptions import FlowPauseTimeout, PrefectException
from prefect.flow_runs import pause_flow_run, resume_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from pydantic import Field

from amopo_core.errors import UserError

HOURS = "AMOPO_APPROVAL_HOURS"
_DEFAULT_HOURS = 24.0
_POLL = 5
"""Time between two looks for the answer [seconds]."""
_SPARE = 600
"""Time by which Prefect's own limit is longer: a run that passes it counts as failed, and nothing failed [seconds]."""


class Answer(RunInput):
    """What a person says of a version that waits."""

    decision: Literal["approve", "reject", "later"] = Field(
        default="later", description="later: this run ends, and the version goes on waiting for `amopo approve`"
    )
    reason: str = Field(default="", description="Why; it is written into the ledger")
    name: str = Field(default="", description="Your name; it is written into the ledger")


def limit() -> float:
    """How long a run waits for a person, from AMOPO_APPROVAL_HOURS [hours].

    Raises:
        UserError: it is no number above 0.
    """
    text = os.environ.get(HOURS) or str(_DEFAULT_HOURS)
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not (0 < hours <= 24 * 365):
        raise UserError(f"{HOURS} is {text!r}; expected the hours that a run waits for a person, such as 24 or 0.5")
    return hours


def ask(description: str) -> Answer:
    """The answer to the form on this flow run's page; `later` where none came within the limit, or Prefect is gone.

    Args:
        description: what the page says above the form, in Markdown.
    """
    seconds = limit() * 3600
    timer = Timer(seconds, wake, [str(flow_run.id)])
    timer.daemon = True
    timer.start()
    try:
        form = Answer.with_initial_data(description=description)
        return pause_flow_run(wait_for_input=form, timeout=math.ceil(seconds) + _SPARE, poll_interval=_POLL)
    except FlowPauseTimeout:
        return Answer()
    except httpx.HTTPError as error:
        get_run_logger().warning("Prefect's server does not answer any more (%s): nobody is waited for", error)
        return Answer()
    finally:
        timer.cancel()


def wake(run_id: str) -> bool:
    """End the pause of a flow run without an answer; False where it does not pause or no server knows it."""
    if not PREFECT_API_URL.value():
        return False
    try:
        resume_flow_run(UUID(run_id), run_input={"decision": "later"})
    except (PrefectException, RuntimeError, httpx.HTTPError):
        return False
    return True
