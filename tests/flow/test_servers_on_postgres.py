"""Both servers on PostgreSQL: retraining, promotion, rollback; connections cut in mid-run; a killed supervisor."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psutil
import pytest
from mlflow import MlflowClient
from sqlalchemy import create_engine, text

from tasks.ports import chosen_port
from tests.flow.conftest import HISTORY
from tests.flow.postgres import ENCODED, PASSWORD, Postgres, postgres  # noqa: F401 (a fixture)
from tests.flow.running import Up, assert_none_left, json_of, start_up

if TYPE_CHECKING:
    from tests.flow.conftest import Workspace

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def here(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """What was trained, without the store that knew it: its first run in another MLflow has nothing to train."""
    folder = tmp_path_factory.mktemp("postgres")
    shutil.copytree(workspace.path, folder / "here", ignore=shutil.ignore_patterns("mlflow.db*", "mlruns", ".amopo"))
    return type(workspace)(folder / "here", workspace.env | {"PREFECT_HOME": str(folder / "prefect")})


@pytest.fixture(scope="module")
def databases(postgres: Postgres) -> dict[str, str]:  # noqa: F811
    return {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"{postgres.database('prefect')}?sslmode=disable",
        "MLFLOW_BACKEND_STORE_URI": postgres.database("mlflow"),
    }


@pytest.fixture(scope="module")
def up(here: Workspace, databases: dict[str, str]) -> Iterator[Up]:
    up = start_up(here, "--no-serve", env=databases)
    yield up
    if up.process.poll() is None:
        up.process.kill()
        up.process.communicate()


def test_one_database_for_both_is_refused(here: Workspace, databases: dict[str, str]) -> None:
    url = databases["MLFLOW_BACKEND_STORE_URI"]
    refused = here.amopo("up", "--prefect-database", url, "--mlflow-database", url)

    assert refused.code == 2
    assert "were both given the database postgresql://127.0.0.1:" in refused.err
    assert_hidden(refused.err)


def test_the_same_flow_trains_and_promotes_while_connections_are_cut(
    here: Workspace,
    up: Up,
    postgres: Postgres,  # noqa: F811
    databases: dict[str, str],
) -> None:
    """All connections, twice a second. The run goes on, or fails with one message, and then the next one ends well.

    Every step of the training reaches MLflow, and its bytes are those of a training that nobody disturbed.
    """
    before = here.trained_at()
    process = here.start("retrain", "--json", "--set", "objective.beta=1.7")
    cut = 0
    while process.poll() is None:
        cut += postgres.cut()
        time.sleep(0.5)
    out, err = process.communicate()

    assert cut > 0
    assert process.returncode in (0, 1), err
    assert "Traceback" not in out + err
    assert err.count("error: ") == process.returncode, err
    ended = json_of(here.amopo("retrain", "--json")) if process.returncode else json.loads(out)
    assert here.shown_versions() == {"champion": ended["version"], "challenger": ended["version"]}
    assert rows(databases["MLFLOW_BACKEND_STORE_URI"], "model_versions") > 0
    assert rows(databases["PREFECT_SERVER_DATABASE_CONNECTION_URL"].partition("?")[0], "flow_run") > 0
    assert not (here.path / "mlflow.db").exists()
    assert not (here.path / ".amopo/prefect/prefect.db").exists()
    assert here.trained_at() > before
    logged = [json.loads(line) for line in (here.path / HISTORY).read_text().splitlines()]
    client = MlflowClient(up.said["mlflow"])
    run = client.get_model_version("amopo", ended["version"]).run_id
    losses = {point.step: point.value for point in client.get_metric_history(run, "loss")}
    assert losses == {row["step"]: row["loss"] for row in logged if "loss" in row}
    lock = (here.path / "dvc.lock").read_bytes()
    again = here.dvc("repro", "--force", "--no-run-cache", "--single-item", "train")
    assert again.returncode == 0, again.stderr
    assert (here.path / "dvc.lock").read_bytes() == lock


def test_nobody_reads_a_password_in_command_lines_logs_or_the_project(here: Workspace, up: Up) -> None:
    family = psutil.Process(up.process.pid).children(recursive=True)

    assert len(family) >= 3
    assert_hidden("\n".join(" ".join(process.cmdline()) for process in family))
    for folder in ("logs", ".amopo"):
        for file in (here.path / folder).rglob("*"):
            if file.is_file() and "pages" not in file.parts:
                assert_hidden(file.read_bytes().decode(errors="replace"))


def test_a_promotion_and_a_rollback_go_through_them(here: Workspace, up: Up) -> None:
    """The other version is the champion's twin: nothing has to be trained for it."""
    client = MlflowClient(up.said["mlflow"])
    before = client.get_model_version_by_alias("amopo", "champion")
    twin = {"tags": dict(before.tags), "model_id": before.source.removeprefix("models:/")}
    other = str(client.create_model_version("amopo", before.source, before.run_id, **twin).version)

    assert json_of(here.amopo("promote", other, "--reason", "a test", "--json"))["champion"] == other
    assert str(client.get_model_version_by_alias("amopo", "champion").version) == other
    ended = json_of(here.amopo("rollback", "--reason", "the test is over", "--json"))
    assert ended["champion"] == str(before.version)
    assert str(client.get_model_version_by_alias("amopo", "champion").version) == str(before.version)


def test_a_killed_supervisor_leaves_no_process_and_no_second_store(here: Workspace, up: Up) -> None:
    """The runs are in PostgreSQL: a command that cannot reach it begins no store of its own."""
    up.process.kill()
    up.ended()

    assert_none_left(here)
    lost = here.amopo("status")
    assert lost.code == 1
    assert f"MLflow at {up.said['mlflow']}" in lost.err
    assert not (here.path / "mlflow.db").exists()


def test_it_comes_back_as_after_a_reboot(here: Workspace, databases: dict[str, str]) -> None:
    """The ports are those of operation.yaml; without the database, `amopo ui` says which one is meant."""
    prefect, mlflow = chosen_port(0, "", ""), chosen_port(0, "", "")
    refused = here.amopo("ui")
    (here.path / "operation.yaml").write_text(
        f"servers: {{prefect_api_url: 'http://127.0.0.1:{prefect}/api', mlflow_tracking_uri: 'http://127.0.0.1:{mlflow}'}}"
    )
    ports = ("--prefect-port", str(prefect), "--mlflow-port", str(mlflow))
    up = start_up(here, "--no-serve", *ports, env=databases)
    champion = here.shown_versions()["champion"]
    up.process.send_signal(signal.SIGTERM)
    code, err = up.ended()

    assert refused.code == 2
    assert "name it as MLFLOW_BACKEND_STORE_URI" in refused.err
    assert not (here.path / "mlflow.db").exists()
    assert up.said["mlflow"] == f"http://127.0.0.1:{mlflow}"
    assert champion is not None
    assert code == 0, err
    assert_none_left(here)


def assert_hidden(text: str) -> None:
    for form in (PASSWORD, ENCODED, "s3cret"):
        assert form not in text


def rows(url: str, table: str) -> int:
    engine = create_engine(url)
    with engine.connect() as connection:
        [(count,)] = connection.execute(text(f"SELECT count(*) FROM {table}")).fetchall()
    engine.dispose()
    return int(count)
