import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from amopo_core.params_file import read_params
from tasks.errors import OutsideError
from tasks.mlflow_failure import is_mlflow_failure
from tasks.tracking import (
    EVALUATION,
    EXPERIMENT,
    GUARDRAILS,
    MANIFEST_FILE,
    QUALITY,
    SPEED,
    TIMES,
    clear_training_logs,
    flat,
    follow_speed,
    last_runs,
    log_decision,
    log_results,
    log_times,
    name_version,
    speed_rows,
    time_metrics,
    tracked_run,
)

PARAMS = Path(__file__).parents[2] / "params.yaml"
DIES = """
import os, platform
platform.node = lambda: f"pod-{os.getpid()}"  # as on Kubernetes: the same volume, another machine
from tasks.tracking import tracked_run
with tracked_run() as run:
    print(run, flush=True)
    os._exit(9)
"""


def test_nested_sections_become_dotted_names() -> None:
    nested = {"train": {"epochs": 1}, "views": {"generic": True}, "weights": {}, "seed": 0}

    assert dict(flat(nested)) == {"train.epochs": 1, "views.generic": True, "weights": {}, "seed": 0}


def test_runs_that_came_to_nothing_hide_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    with tracked_run() as made:
        name_version(made, "1")
    for _ in range(3):
        with tracked_run():
            pass

    found = last_runs(count=2)

    assert [run["version"] for run in found] == [None, None, "1"]
    assert found[-1]["run"] == made


def test_a_run_that_was_killed_ends_with_the_next_one_of_its_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another machine too; the run of a copy of the folder is another's."""
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    store = f"sqlite:///{tmp_path}/mlflow.db"
    here.mkdir()
    dies_in_a_run(here, store)
    shutil.copytree(here, elsewhere)
    other, killed = (dies_in_a_run(folder, store) for folder in (elsewhere, here))
    monkeypatch.chdir(here)
    mlflow.set_tracking_uri(store)
    client = MlflowClient()

    with tracked_run() as run:
        statuses = [client.get_run(which).info.status for which in (killed, other, run)]

    assert statuses == ["KILLED", "RUNNING", "RUNNING"]
    assert client.get_run(run).info.status == "FINISHED"


def test_speed_and_times_become_metrics_by_name() -> None:
    rows = speed_rows([{"step": 5, "tokens_per_second": 900, "pairs_per_second": 2.5, "memory_bytes": None}])
    summary = {"seconds": {"forward": 3, "backward": 6.5}, "tokens_per_second": 880.0, "device": "cpu"}

    assert rows == [{"step": 5, "speed/tokens_per_second": 900, "speed/pairs_per_second": 2.5}]
    assert time_metrics(summary) == {
        "time/forward": 3,
        "time/backward": 6.5,
        "speed/tokens_per_second/whole_run": 880,
    }


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """An empty store, from an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tasks.history.EVERY", 0.01)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    return MlflowClient()


def write_speed(*steps: int) -> None:
    SPEED.parent.mkdir(parents=True, exist_ok=True)
    with SPEED.open("a") as file:
        file.writelines(f'{{"step": {step}, "tokens_per_second": {step * 100.0}}}\n' for step in steps)


def test_the_speed_is_sent_while_training_goes_on_and_the_rest_after_it(client: MlflowClient) -> None:
    with tracked_run() as run:
        with follow_speed(run) as speed:
            write_speed(1, 2)
        write_speed(3)
        TIMES.write_text('{"seconds": {"forward": 1.5}, "pairs_per_second": 4}')
        log_times.fn(run, speed.sent)

    points = client.get_metric_history(run, "speed/tokens_per_second")
    assert speed.sent == 2
    assert [(point.step, point.value) for point in points] == [(1, 100.0), (2, 200.0), (3, 300.0)]
    assert client.get_run(run).data.metrics["time/forward"] == 1.5
    assert {file.path for file in client.list_artifacts(run, "logs/train")} == {str(SPEED), str(TIMES)}


def test_what_an_earlier_training_left_is_not_sent(client: MlflowClient) -> None:
    write_speed(1)
    clear_training_logs()
    with tracked_run() as run:
        with follow_speed(run) as speed:
            pass
        log_times.fn(run, speed.sent)

    assert client.get_run(run).data.metrics == {}
    assert client.list_artifacts(run) == []


def test_the_run_gets_its_own_pictures_and_no_comparisons(client: MlflowClient) -> None:
    pictures = ["reports/evaluate/dimensions.png", "reports/train/curves.png", "reports/compare/1-2.png"]
    for path in (*map(Path, pictures), QUALITY / "report.html", MANIFEST_FILE):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x89PNG")
    for report in (EVALUATION / "report.json", GUARDRAILS):
        report.parent.mkdir(exist_ok=True)
        report.write_text(json.dumps({"kl/base": 0.5}))
    (EVALUATION / "report.md").write_text("# Report\n")
    with tracked_run() as run:
        log_results.fn(run, read_params(PARAMS), {})

    assert [file.path for file in client.list_artifacts(run, "reports/train")] == ["reports/train/curves.png"]
    folders = {file.path for file in client.list_artifacts(run, "reports")}
    assert folders == {"reports/evaluate", "reports/train", "reports/quality"}


class Full(BaseHTTPRequestHandler):
    """A server of artifacts that takes none."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(507)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


def test_a_server_of_artifacts_that_fails_is_said_in_one_message(client: MlflowClient) -> None:
    Path("decision.json").write_text("{}")
    with ThreadingHTTPServer(("127.0.0.1", 0), Full) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        place = f"http://127.0.0.1:{server.server_address[1]}/api/2.0/mlflow-artifacts/artifacts"
        run = client.create_run(client.create_experiment(EXPERIMENT, artifact_location=place)).info.run_id
        with pytest.raises(OutsideError, match="did not do what was asked: 507 Server Error"):
            log_decision(run, Path("decision.json"))
        server.shutdown()
        thread.join()


def test_s3s_own_errors_are_mlflows_failures_and_other_errors_are_not() -> None:
    botocore = pytest.importorskip("botocore.exceptions")

    assert is_mlflow_failure(botocore.NoCredentialsError())
    assert not is_mlflow_failure(FileNotFoundError("reports/evaluate/report.json"))


def dies_in_a_run(workspace: Path, store: str) -> str:
    """The run of a process that ended without a word."""
    env = os.environ | {"MLFLOW_TRACKING_URI": store, "PYTHONPATH": str(Path(__file__).parents[3])}
    died = subprocess.run([sys.executable, "-c", DIES], cwd=workspace, env=env, stdout=subprocess.PIPE, text=True)
    assert died.returncode == 9
    return died.stdout.strip()


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "KILLED"), (OutsideError("no"), "FAILED")])
def test_a_run_that_somebody_stops_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: str
) -> None:
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        with pytest.raises((KeyboardInterrupt, OutsideError)), tracked_run() as run:
            raise error
        ended = MlflowClient().get_run(run).info.status
    finally:
        mlflow.set_tracking_uri(None)

    assert ended == status
