"""MLflow's server may be away when a training ends: what is trained waits for it."""

from __future__ import annotations

import logging
import os
import time

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from amopo_core.errors import UserError
from tasks.address import quoted, shown

WAIT = "AMOPO_MLFLOW_WAIT"
"""The variable that says how long [seconds]."""
DEFAULT = 600.0
EVERY = 5.0
"""Time between two attempts [seconds]."""


def wait_for_mlflow(log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
    """Come back once MLflow answers, or when the time is over: then whoever asks it next says why.

    Raises:
        UserError: the variable is no number of seconds.
    """
    limit = seconds_to_wait()
    deadline = time.monotonic() + limit
    is_said = False
    while True:
        try:
            MlflowClient().search_experiments(max_results=1)
            return
        except MlflowException as error:
            if time.monotonic() >= deadline:
                return
            if not is_said:
                uri = os.environ.get("MLFLOW_TRACKING_URI", "")
                log.warning("waiting up to %.0f s for MLflow at %s: %s", limit, shown(uri), quoted(error, uri, 160))
                is_said = True
        time.sleep(min(EVERY, max(deadline - time.monotonic(), 0)))


def seconds_to_wait() -> float:
    """What the variable says; ten minutes without it."""
    said = os.environ.get(WAIT) or str(DEFAULT)
    try:
        limit = float(said)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise UserError(f"{WAIT} is {said!r}; expected a number of seconds, such as 600, or 0 for no waiting")
    return limit
