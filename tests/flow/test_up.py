"""`amopo up`: servers over what the workspace has, found by every command, and their pages in a real browser."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from mlflow import MlflowClient

from tests.flow.browser import Page, browser, needs_chromium
from tests.flow.running import Up, assert_none_left, start_up

if TYPE_CHECKING:
    from tests.flow.conftest import Workspace

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def champion(workspace: Workspace) -> str:
    """Who was champion before the servers were started."""
    return str(MlflowClient(workspace.store).get_model_version_by_alias("amopo", "champion").version)


@pytest.fixture(scope="module")
def up(workspace: Workspace, champion: str) -> Iterator[Up]:
    up = start_up(workspace, "--no-serve")
    yield up
    if up.process.poll() is None:
        up.process.kill()
        up.process.communicate()


@pytest.fixture(scope="module")
def page(up: Up, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser that was nowhere else than on the servers' pages at the end."""
    with browser(tmp_path_factory.mktemp("browser")) as page:
        yield page
    assert page.asked == {"127.0.0.1"}


def demo_run(workspace: Workspace) -> str:
    """The id of the flow run that `amopo demo` was, on a temporary server."""
    first = "SELECT flow_run_id FROM artifact WHERE key = 'retrain-report' ORDER BY created LIMIT 1"
    with closing(sqlite3.connect(workspace.path / ".amopo/prefect/prefect.db")) as store:
        [(run,)] = store.execute(first).fetchall()
    return str(run)


def test_what_was_there_before_is_found_without_an_export(workspace: Workspace, up: Up, champion: str) -> None:
    """`amopo ui` says that a server is known."""
    refused = workspace.amopo("ui")

    client = MlflowClient(up.said["mlflow"])
    assert str(client.get_model_version_by_alias("amopo", "champion").version) == champion
    assert refused.code == 2
    assert f"its pages are at {up.said['mlflow']}" in refused.err
    assert demo_run(workspace) in {run["id"] for run in asked(up, "flow_runs", {})}
    assert up.said["environment"]["PREFECT_API_URL"] == f"{up.said['prefect']}/api"


def test_a_second_one_is_refused_and_names_the_first(workspace: Workspace, up: Up) -> None:
    second = workspace.amopo("up")

    assert second.code == 1
    assert f"process {up.process.pid}" in second.err
    assert up.said["prefect"] in second.err


def test_a_busy_port_is_refused_by_name(fresh: Workspace) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        refused = fresh.amopo("up", "--prefect-port", "0", "--mlflow-port", str(port))

    assert refused.code == 2
    assert f"port {port} for MLflow cannot be used" in refused.err
    assert "choose another with --mlflow-port" in refused.err


def test_servers_that_somebody_else_runs_are_left_to_them(fresh: Workspace) -> None:
    prefect = fresh.amopo("up", env={"PREFECT_API_URL": "http://127.0.0.1:1/api"})
    mlflow = fresh.amopo("up", env={"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"})

    assert (prefect.code, mlflow.code) == (2, 2)
    assert "PREFECT_API_URL names a server already" in prefect.err
    assert "MLFLOW_TRACKING_URI names a server" in mlflow.err


@needs_chromium
def test_the_version_has_its_card_its_tags_and_its_reasons(page: Page, workspace: Workspace, up: Up) -> None:
    text = page.open(f"{up.said['mlflow']}/#/models/amopo/versions/1", until="AMoPO policy")

    assert "Reward accuracy [share of the pairs] on " in text
    assert "better, the interval lies above zero" in text
    assert workspace.run_of("1").data.tags["commit"] in text


@needs_chromium
def test_the_run_has_its_report_its_numbers_and_pictures(page: Page, workspace: Workspace, up: Up) -> None:
    run = workspace.run_of("1").info
    place = f"{up.said['mlflow']}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
    text = page.open(place, until="Overall reward accuracy on ")
    picture = "reports/evaluate/dimensions.png"
    files = page.open(f"{place}/artifacts/{picture}", until="report.md")

    assert "rewards/accuracies/all_dimensions" in text
    assert "dimensions.png" in files
    assert picture in page.pictures()


@needs_chromium
def test_the_flow_run_has_its_stages_and_each_its_log(page: Page, workspace: Workspace, up: Up) -> None:
    run = demo_run(workspace)
    wanted = {"flow_runs": {"id": {"any_": [run]}}, "task_runs": {"name": {"any_": ["train"]}}}
    [train] = asked(up, "task_runs", wanted)

    assert "Running stage 'normalize'" in page.open(
        f"{up.said['prefect']}/v2/runs/flow-run/{run}", until="Running stage"
    )
    assert "step 1/" in page.open(f"{up.said['prefect']}/v2/runs/task-run/{train['id']}", until="step 1/")


@needs_chromium
@pytest.mark.parametrize("pages", ["/v2", ""])
def test_the_report_is_read_with_its_reasons_and_pictures(page: Page, workspace: Workspace, up: Up, pages: str) -> None:
    """On the present pages and on the older ones."""
    wanted = {"artifacts": {"key": {"any_": ["retrain-report"]}, "flow_run_id": {"any_": [demo_run(workspace)]}}}
    [report] = asked(up, "artifacts", wanted)
    place = f"{up.said['prefect']}{pages}/artifacts/artifact/{report['id']}"
    text = page.open(place, until="models:/amopo/1: the verdict is yes")

    assert "better, the interval lies above zero" in text
    assert page.pictures() == ["candidate against base, dimension by dimension", "curves", "weights"]


def test_a_server_that_is_killed_is_started_again(up: Up) -> None:
    before = up.servers()["MLflow"]
    before.kill()
    while (now := up.servers().get("MLflow", before)) == before or not answers(f"{up.said['mlflow']}/health"):
        time.sleep(0.1)

    assert now.pid != before.pid
    assert MlflowClient(up.said["mlflow"]).get_registered_model("amopo").aliases


def test_sigterm_ends_all_of_them_well(workspace: Workspace, up: Up, champion: str) -> None:
    """And the commands do without them."""
    up.process.send_signal(signal.SIGTERM)
    code, err = up.ended()

    assert code == 0, err
    assert "MLflow ended with status -9" in err
    assert "starting MLflow again (1 of 5)" in err
    assert err.count("MLflow is ready") == 2
    assert "Traceback" not in err
    assert_none_left(workspace)
    assert workspace.shown_versions()["champion"] == champion


def test_ui_opens_mlflow_alone_until_ctrl_c(workspace: Workspace) -> None:
    process = workspace.start("ui", "--port", "0", "--json")
    assert process.stdout is not None
    said = json.loads("".join(process.stdout.readline() for _ in range(3)))
    assert answers(f"{said['mlflow']}/health")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()

    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert_none_left(workspace)


def asked(up: Up, what: str, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """What Prefect's server knows of something."""
    return httpx.post(f"{up.said['prefect']}/api/{what}/filter", json=wanted, trust_env=False).json()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False
