"""A registered version as a plain transformers folder: configuration, weights, tokenizer, chat template."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import psutil
from mlflow import MlflowClient

from amopo_core.errors import UserError
from tasks.address import quoted, shown
from tasks.errors import OutsideError
from tasks.mlflow_failure import is_mlflow_failure
from tasks.registry import MODEL, Version
from tasks.tracking import reaching_mlflow

_OWN = Path(".amopo")
"""This machine's state; on the project's disk, in no folder that is recorded."""
_BROUGHT = "version-"
"""Begins the name of a process's own folder there; its id ends it."""


def bring(version: Version, folder: Path) -> None:
    """Write the version's policy to `folder`, which is not there yet.

    Raises:
        OutsideError: its files are not where MLflow says, or cannot be brought from there.
    """
    with reaching_mlflow():
        where = MlflowClient().get_model_version_download_uri(MODEL, version.number)
    with _empty(folder.with_name(f"{folder.name}.bring")) as scratch:
        try:
            artifacts = Path(mlflow.artifacts.download_artifacts(version.uri, dst_path=str(scratch)))
            beside = artifacts / "model"
            shutil.copytree(artifacts / "components" / "tokenizer", beside, dirs_exist_ok=True)
        except Exception as error:
            if not (isinstance(error, OSError) or is_mlflow_failure(error)):
                raise
            said = quoted(error, os.environ.get("MLFLOW_TRACKING_URI", ""), 300)
            raise OutsideError(
                f"the files of version {version.number} could not be brought from {shown(where)}: {said}"
            ) from None
        beside.rename(folder)


@contextmanager
def brought(version: Version) -> Iterator[Path]:
    """The folder of the version's policy, for as long as the block lasts."""
    for left in _OWN.glob(f"{_BROUGHT}*"):
        if not psutil.pid_exists(int(left.name.removeprefix(_BROUGHT))):
            shutil.rmtree(left, ignore_errors=True)  # by a process that was killed
    with _empty(_OWN / f"{_BROUGHT}{os.getpid()}") as scratch:
        folder = scratch / "policy"
        bring(version, folder)
        yield folder


@contextmanager
def _empty(folder: Path) -> Iterator[Path]:
    """The folder, empty at first and gone afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def require_loadable(version: Version) -> None:
    """Refuse a version that nobody could serve: its files are brought and loaded.

    Raises:
        OutsideError: files are missing.
        UserError: files are damaged, so that they do not load.
    """
    from amopo_core.policy import load_policy

    try:
        with brought(version) as folder:
            load_policy(folder)
    except (UserError, OutsideError) as error:
        raise type(error)(
            f"version {version.number} cannot be served, so it does not become champion: {error}\n"
            "bring its files back, or choose another version (see `amopo history`)"
        ) from error
