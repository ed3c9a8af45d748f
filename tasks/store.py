"""MLflow's SQLite store, there whole or not at all: MLflow never opens one whose first migrations were killed."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError


def ensure_store(uri: str) -> None:
    """Make the SQLite file that a tracking URI names, where there is none yet; any other URI is left to MLflow.

    Of several commands that do so at the same time, the store of one stays: the others may be using it already.
    """
    path = _file(uri)
    if path is None or path.exists():
        return
    with TemporaryDirectory() as folder:
        made = Path(folder) / "mlflow.db"
        MlflowClient(f"sqlite:///{made}").search_experiments(max_results=1)
        with TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.") as same_disk:
            whole = Path(same_disk) / "mlflow.db"
            with closing(sqlite3.connect(made)) as store:
                store.execute("VACUUM INTO ?", [str(whole)])
            _put(whole, path)


def _put(whole: Path, path: Path) -> None:
    """Give the file its name, unless there is one of that name by now."""
    try:
        os.link(whole, path)  # unlike a renaming, it replaces nothing
    except FileExistsError:
        pass
    except OSError:  # a disk that knows no links
        whole.rename(path)


def _file(uri: str) -> Path | None:
    try:
        url = make_url(uri)
    except ArgumentError:
        return None
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    return Path(str(url.database)) if is_file else None
