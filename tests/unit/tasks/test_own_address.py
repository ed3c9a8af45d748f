"""Which addresses `amopo up` and `amopo ui` take for their own: an earlier one's, and those of operation.yaml."""

import os
from pathlib import Path

import pytest

from amopo_core.errors import UserError
from flows.environment import set_defaults
from tasks.database import database
from tasks.mlflow_server import is_elsewhere, mlflow_database
from tasks.own_address import is_left_behind, leave_out_own
from tasks.servers import Servers, claimed

OWN = {"PREFECT_API_URL": "http://127.0.0.1:4200/api", "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"}
SERVERS = "servers: {mlflow_tracking_uri: 'MLFLOW', prefect_api_url: 'http://localhost:4200/api'}\n"
POSTGRES = "postgresql://127.0.0.1/mlflow"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", {})


def has_run() -> None:
    """An `amopo up` with a database of its own for MLflow, which has ended."""
    with claimed() as publish:
        publish(Servers(1, "http://127.0.0.1:4200", OWN["MLFLOW_TRACKING_URI"], elsewhere=True))


def started() -> tuple[str | None, str, bool]:
    """What a new one finds: Prefect's address, MLflow's store without a URL, and whether another is elsewhere."""
    with claimed():
        leave_out_own(OWN, "--port")
        is_other = is_elsewhere(database(POSTGRES, "--x", {"postgresql": "psycopg"}))
        return os.environ.get("PREFECT_API_URL"), mlflow_database(None, "").where, is_other


def test_what_an_earlier_one_left_is_no_other_server() -> None:
    has_run()
    set_defaults()
    assert os.environ["MLFLOW_TRACKING_URI"] == OWN["MLFLOW_TRACKING_URI"]
    assert is_left_behind()

    assert started() == (None, "sqlite:///mlflow.db", True)


@pytest.mark.parametrize("is_second", [False, True])
def test_neither_is_what_operation_yaml_says_of_the_same_address(is_second: bool) -> None:
    if is_second:
        has_run()
    Path("operation.yaml").write_text(SERVERS.replace("MLFLOW", OWN["MLFLOW_TRACKING_URI"]))
    set_defaults()

    assert started() == (None, "sqlite:///mlflow.db", True)


def test_a_file_of_operation_yaml_is_served() -> None:
    has_run()
    Path("operation.yaml").write_text(SERVERS.replace("MLFLOW", "sqlite:///runs.db"))
    set_defaults()

    assert started() == (None, "sqlite:///runs.db", True)


def test_another_server_of_operation_yaml_is_refused_and_the_file_is_named() -> None:
    Path("operation.yaml").write_text(SERVERS.replace("MLFLOW", "http://mlflow.example.org"))
    set_defaults()

    with pytest.raises(UserError, match=r"operation\.yaml: servers\.mlflow_tracking_uri names a server, http://mlflow"):
        started()


def test_what_the_user_has_set_stays() -> None:
    has_run()
    mine = {"PREFECT_API_URL": "http://mine:4200/api", "MLFLOW_TRACKING_URI": "http://mine:5000"}
    os.environ.update(mine)
    set_defaults()
    leave_out_own(OWN, "--port")

    assert {name: os.environ[name] for name in mine} == mine
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI names a server; its pages are at http://mine:5000"):
        mlflow_database(None, "")
