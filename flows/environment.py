"""Defaults of the tools' own settings, for this process and its children; what the user has set stays."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from tasks.servers import environment_here

DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # seconds, not minutes, until a server that is down is known to be down
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    # a temporary server needs longer than Prefect's 20 s where the cores are busy
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(asctime)s  %(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": "%(asctime)s  %(task_run_name)s: %(message)s",
    "TOKENIZERS_PARALLELISM": "false",
}


def set_defaults() -> None:
    """Set what is not set; Prefect and MLflow read some of it when they are imported, so call this first.

    The servers that `amopo up` runs in this project come first, then those of operation.yaml. A mistake in that file is
    not said here: `require_operation` does, once a command is known.
    """
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # every retry, beside the one message that it was in vain
    for name, value in (DEFAULTS | _configured() | dict(environment_here())).items():
        os.environ.setdefault(name, value)


def require_operation() -> None:
    """Refuse an operation.yaml with a mistake: its servers would be passed over in silence.

    Raises:
        UserError: with file, line and key.
    """
    if _is_there():
        from tasks.operation import read_operation

        read_operation()


def _configured() -> dict[str, str]:
    if not _is_there():
        return {}
    from amopo_core.errors import UserError
    from tasks.operation import read_operation

    try:
        return read_operation().servers.variables
    except UserError:
        return {}


def _is_there() -> bool:
    """Looked at first: what reads the file takes longer to import than `amopo --help` to answer."""
    return Path("operation.yaml").exists()
