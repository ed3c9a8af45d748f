"""What MLflow's client raises where a server, or the store that keeps its artifacts, does not do what was asked."""

from __future__ import annotations

import requests
from mlflow.exceptions import MlflowException

_STORES = {"boto3", "botocore", "s3transfer"}
"""Packages of S3's client, which MLflow lets speak for themselves; they need not be installed."""


def is_mlflow_failure(error: BaseException) -> bool:
    """Whether it is one of these: its own, that of an artifact server, that of S3."""
    kinds = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return isinstance(error, MlflowException | requests.RequestException) or bool(kinds & _STORES)
