"""MLflow's SQLite store is there whole or not at all, whenever its making is killed."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks import store
from tasks.store import ensure_store

MAKE = "from tasks.store import ensure_store; ensure_store('sqlite:///mlflow.db')"


def test_a_kill_in_the_first_migrations_leaves_nothing_and_the_next_start_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tmp").mkdir()
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "TMPDIR": str(tmp_path / "tmp")}
    process = subprocess.Popen([sys.executable, "-c", MAKE], env=env, stderr=subprocess.DEVNULL)
    while not any(path.stat().st_size for path in tmp_path.glob("tmp/*/mlflow.db")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "mlflow.db").exists()

    ensure_store("sqlite:///mlflow.db")

    made = (tmp_path / "mlflow.db").read_bytes()
    [experiment] = MlflowClient("sqlite:///mlflow.db").search_experiments()
    assert experiment.artifact_location.endswith(f"{tmp_path.name}/mlruns/0")
    ensure_store("sqlite:///mlflow.db")
    assert (tmp_path / "mlflow.db").read_bytes() == made


def test_of_two_that_make_it_at_the_same_time_the_first_ones_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another command makes it while this one is about to, and works with it already."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"

    def client_of_who_is_slow(own: str) -> MlflowClient:
        monkeypatch.undo()
        ensure_store(uri)
        shutil.copy(tmp_path / "mlflow.db", own.removeprefix("sqlite:///"))  # quicker than its own migrations
        MlflowClient(uri).create_experiment("mine")
        return MlflowClient(own)

    monkeypatch.setattr(store, "MlflowClient", client_of_who_is_slow)
    ensure_store(uri)

    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as kept:  # MLflow may hold the file that was there before
        assert ("mine",) in kept.execute("SELECT name FROM experiments").fetchall()
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_disk_that_knows_no_links_gets_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_paths: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", link)
    (tmp_path / "whole").write_text("a store")
    store._put(tmp_path / "whole", tmp_path / "mlflow.db")

    assert (tmp_path / "mlflow.db").read_text() == "a store"


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:1", "sqlite://", "sqlite:///:memory:", "postgresql://h/d", "./mlruns"]
)
def test_any_other_store_is_mlflows_own(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ensure_store(uri)

    assert not list(tmp_path.iterdir())
