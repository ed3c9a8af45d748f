"""The real flow in a workspace of its own: Prefect's temporary server, DVC's stages, MLflow's store."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.types import DataType

from tasks.ledger_state import kept_in
from tasks.lock import read_lock
from tests.flow.running import assert_none_left

if TYPE_CHECKING:
    from tests.flow.conftest import Finished, Workspace

pytestmark = pytest.mark.flow

BEFORE_TRAINING = {"normalize", "pairs", "quality", "base"}


def test_a_first_run_ends_with_a_champion(finished: tuple[Workspace, Finished]) -> None:
    workspace, demo = finished

    assert demo.code == 0, demo.err
    assert demo.json["promoted"], demo.json["reasons"]
    assert demo.json["against_champion"] is None
    assert set(demo.json["executed"]) == BEFORE_TRAINING | {"train", "evaluate", "evaluate-champion", "guardrails"}
    assert workspace.shown_versions() == workspace.versions() == {"champion": "1", "challenger": "1"}
    assert "train: step 1/" in demo.err


def test_everything_is_up_to_date_after_a_run_for_dvc_alone(workspace: Workspace) -> None:
    status, repro = workspace.dvc("status"), workspace.dvc("repro")

    assert status.stdout == "Data and pipelines are up to date.\n"
    assert repro.returncode == 0
    assert "Running stage" not in repro.stdout


def test_the_version_names_what_made_it(workspace: Workspace) -> None:
    version = MlflowClient(workspace.store).get_model_version_by_alias("amopo", "champion")
    recorded = workspace.git("show", f"{version.tags['commit']}:dvc.lock")
    pointers = workspace.git("ls-tree", "-r", "--name-only", version.tags["commit"]).splitlines()

    assert recorded == (workspace.path / "dvc.lock").read_text()
    assert {"data/feedback.dvc", "models/champion.dvc", "reports/evaluate/report.json"} <= set(pointers)
    assert version.tags["data/pairs"] in recorded
    assert version.tags["policy"] in recorded
    assert version.tags["dimensions"] == "helpfulness,correctness,instruction_following"
    named = {"commit", "lock", "data/pairs", "data/feedback", "constraints", "seed", "packages", "device", "world_size"}
    run = workspace.run_of(str(version.version))
    assert named <= version.tags.keys()
    assert {name: run.data.tags.get(name) for name in named} == {name: version.tags[name] for name in named}
    assert version.description.startswith("# AMoPO policy")


def test_the_ledger_begins_with_the_first_champion(workspace: Workspace) -> None:
    [kept] = kept_in(MlflowClient(workspace.store).get_registered_model("amopo").tags)

    assert (kept.number, kept.entry.version, kept.entry.how, kept.done) == (1, "1", "promoted", True)
    assert kept.entry.why.startswith("overall reward accuracy")
    assert kept.entry.by.startswith("flow run ")


def test_what_was_recorded_is_whole(workspace: Workspace, tmp_path: Path) -> None:
    """The commit and the cache are all that it takes to have the run's workspace again."""
    again = type(workspace)(tmp_path / "again", workspace.env)
    commit = MlflowClient(workspace.store).get_model_version_by_alias("amopo", "champion").tags["commit"]
    workspace.git("worktree", "add", "--quiet", str(again.path), commit)
    again.dvc("config", "--local", "cache.dir", str(workspace.path / ".dvc/cache"))

    assert again.dvc("checkout").returncode == 0
    assert again.dvc("status").stdout == "Data and pipelines are up to date.\n"
    assert (again.path / "models/policy/model.safetensors").is_file()
    assert (again.path / "models/champion/no_champion.json").is_file()


def test_the_run_holds_params_history_data_and_pictures(workspace: Workspace) -> None:
    run = workspace.run_of("1")
    client = MlflowClient(workspace.store)
    losses = client.get_metric_history(run.info.run_id, "loss")
    files = {
        file.path
        for folder in ("train", "evaluate")
        for file in client.list_artifacts(run.info.run_id, f"reports/{folder}")
    }

    assert run.info.status == "FINISHED"
    assert run.data.params["train.learning_rate"] == "0.01"
    assert [point.step for point in losses] == list(range(1, len(losses) + 1))
    assert len(losses) > 10
    lock = read_lock(workspace.path / "dvc.lock")
    assert {data.dataset.name: data.dataset.digest for data in run.inputs.dataset_inputs} == {
        "data/feedback": lock.dependency("normalize", "data/feedback"),
        "data/pairs": lock.output("pairs", "data/pairs"),
    }
    assert {"reports/train/curves.png", "reports/evaluate/dimensions.png", "reports/evaluate/report.md"} <= files


def test_the_version_says_what_goes_in_and_out(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace.path)
    mlflow.set_tracking_uri(workspace.store)

    info = mlflow.models.get_model_info("models:/amopo/1")

    assert info.signature.inputs.input_types() == info.signature.outputs.input_types() == [DataType.string]
    assert info.saved_input_example_info is not None
    assert info.run_id == workspace.run_of("1").info.run_id


def test_prefect_keeps_the_report(workspace: Workspace) -> None:
    with closing(sqlite3.connect(workspace.path / ".amopo/prefect/prefect.db")) as server:
        [(report,)] = server.execute("SELECT data FROM artifact WHERE key = 'retrain-report'").fetchall()

    page = json.loads(report)
    assert page.startswith("# models:/amopo/1: the verdict is yes\n\n| holds | condition |")
    assert (workspace.path / "reports/evaluate/report.md").read_text().partition("![")[0] in page
    assert page.count("](data:image/png;base64,") == 3


def test_the_verdict_is_written_down_with_what_it_rests_on(finished: tuple[Workspace, Finished]) -> None:
    workspace, demo = finished
    decision = json.loads((workspace.path / "reports/decision.json").read_text())
    run = workspace.run_of("1")
    with closing(sqlite3.connect(workspace.path / ".amopo/prefect/prefect.db")) as server:
        [(page,)] = server.execute("SELECT data FROM artifact WHERE key = 'retrain-report'").fetchall()

    assert (decision["candidate"], decision["champion"], decision["incumbent"]) == ("1", None, "base")
    assert decision["promote"]
    assert decision["reasons"] == demo.json["reasons"]
    assert decision["against_base"] == demo.json["against_base"]
    held = {condition["name"]: condition["holds"] for condition in decision["conditions"]}
    assert all(held.values())
    assert [name for name in held if not name.startswith("dimension/")] == ["prompts", "overall", "kl/base"]
    assert decision["guardrails"]["kl/base"] == run.data.metrics["guardrails/kl/base"] > 0
    assert decision["guardrails"]["unmeasured"] == {"champion": "there is no champion yet"}
    kept = mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/decision.json", tracking_uri=workspace.store)
    assert json.loads(Path(kept).read_text()) == decision
    assert "| yes | KL divergence from the base" in page


def test_the_champion_loads_and_generates(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace.path)
    mlflow.set_tracking_uri(workspace.store)

    [answer] = mlflow.transformers.load_model("models:/amopo@champion")("Question 3?", max_new_tokens=3)

    assert answer["generated_text"].startswith("Question 3?")


def test_nothing_new_and_nothing_changed_ends_without_training(workspace: Workspace) -> None:
    client = MlflowClient(workspace.store)
    told_before = client.get_model_version("amopo", "1").tags["told"]
    client.set_model_version_tag("amopo", "1", "told", "not yet")  # as one leaves it that is killed behind the verdict
    trained = workspace.trained_at()
    again = workspace.amopo("retrain", "--json")

    assert again.code == 0, again.err
    outcome = again.json
    assert outcome.pop("seconds") > 0
    assert outcome.pop("largest_process_bytes") > 0
    assert outcome == {
        "due": False,
        "version": "1",
        "promoted": None,
        "verdict": "promoted",
        "reasons": [],
        "executed": [],
        "against_base": None,
        "against_champion": None,
    }
    assert workspace.trained_at() == trained
    assert "nothing new and nothing changed" in again.err
    assert told_before == client.get_model_version("amopo", "1").tags["told"] == "yes"


def test_ctrl_c_in_training_leaves_no_process_and_the_champion(workspace: Workspace) -> None:
    ended = workspace.interrupted_in_training(signal.SIGINT, "retrain", "--set", "objective.beta=1.5")

    assert ended.code == 130, ended.err
    assert "interrupted: ending what is at work, a training saves its step" in ended.err
    assert ended.err.endswith("interrupted; the same command goes on from what is done\n")
    assert_stopped(workspace, ended)


def test_sigterm_saves_the_training_too(workspace: Workspace) -> None:
    ended = workspace.interrupted_in_training(signal.SIGTERM, "retrain")

    assert ended.code == 128 + signal.SIGTERM, ended.err
    assert "going on from checkpoint-" in ended.err
    assert ended.err.endswith("ended by SIGTERM; the same command goes on from what is done\n")
    assert_stopped(workspace, ended)


def test_after_kill_9_nothing_works_on_and_the_champion_stays(workspace: Workspace) -> None:
    ended = workspace.interrupted_in_training(signal.SIGKILL, "retrain")

    assert ended.code == -signal.SIGKILL
    assert_stopped(workspace, ended)


def test_a_changed_loss_trains_and_evaluates_while_mlflow_goes_down_and_comes_back(
    workspace: Workspace, free_port: int, tmp_path: Path
) -> None:
    """Goes on after the kill; MLflow falls silent in training: what is trained waits, and is registered untrained.

    There is a DVC remote by now, which gets the data of what is recorded.
    """
    workspace.dvc("remote", "add", "--default", "--local", "store", str(tmp_path / "store"))
    server = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port}"}
    mlflow_server = serve(workspace, free_port)
    try:
        process = workspace.start("retrain", "--json", env=server | {"AMOPO_MLFLOW_WAIT": "0"})
        workspace.wait_for_training(process)
    finally:
        stop(mlflow_server)
    _, err = process.communicate()

    assert process.returncode == 1, err
    assert "run the same command again: what is trained is kept" in err
    assert "Traceback" not in err
    trained = workspace.trained_at()

    mlflow_server = serve(workspace, free_port)
    try:
        again = workspace.amopo("retrain", "--json", env=server)
    finally:
        stop(mlflow_server)

    assert again.code == 0, again.err
    assert again.json["due"]
    assert again.json["executed"] == ["evaluate-champion", "guardrails"]
    assert workspace.trained_at() == trained
    assert again.json["against_champion"] is not None
    assert any((tmp_path / "store").rglob("*.dir"))
    assert workspace.versions()["challenger"] == "2"
    losses = MlflowClient(workspace.store).get_metric_history(workspace.run_of("2").info.run_id, "loss")
    assert [point.step for point in losses] == list(range(1, len(losses) + 1))
    stages = [line.split("Running stage '")[1].split("'")[0] for line in err.splitlines() if "Running stage '" in line]
    assert stages == ["train", "evaluate"]


def test_status_shows_versions_and_runs(workspace: Workspace) -> None:
    shown = workspace.amopo("status")
    found = workspace.amopo("status", "--json").json

    assert shown.code == 0
    assert "champion" in shown.out
    assert "models:/amopo/2" in shown.out
    assert all(run["run"] in shown.out for run in found["runs"])
    assert {run["version"] for run in found["runs"]} >= {"2", None}
    assert {run["status"] for run in found["runs"]} == {"FINISHED", "KILLED"}


def test_what_a_stage_refuses_is_said_once_and_the_champion_stays(workspace: Workspace) -> None:
    before = workspace.versions()
    params = (workspace.path / "params.yaml").read_text()
    nobody = "sources.nobody={rows: responses, scores: {correctness: {field: c, scale: [1, 5]}}}"
    ended = workspace.amopo("retrain", "--set", nobody)
    (workspace.path / "params.yaml").write_text(params)

    assert ended.code == 2, ended.err
    assert "error: stage normalize: sources.nobody: there is no feedback" in ended.err
    assert "Traceback" not in ended.err + ended.out
    assert workspace.versions() == before


def test_ingest_says_what_it_found_and_how_to_declare_it(tmp_path: Path, workspace: Workspace) -> None:
    new_feedback = tmp_path / "later.csv"
    new_feedback.write_text("prompt,response,clarity\nWhy?,Because.,6\nWhy?,So.,1\n")

    first = workspace.amopo("ingest", str(new_feedback), "--source", "later")
    again = workspace.amopo("ingest", str(new_feedback), "--source", "later", "--json")

    assert first.code == 0, first.err
    assert "later is not declared yet" in first.out
    assert "clarity: number as text, 1 to 6" in first.out
    assert [(file["rows"], file["batch"]) for file in again.json["files"]] == [(0, None)]
    assert "clarity: {field: clarity, scale: [LOWEST, HIGHEST]}   # seen 1 to 6" in again.json["suggestion"]


def test_feedback_that_is_not_trained_on_makes_nothing_due(workspace: Workspace) -> None:
    runs = workspace.amopo("status", "--json").json["runs"]
    ended = workspace.amopo("retrain", "--json")

    assert ended.code == 0, ended.err
    assert not ended.json["due"]
    assert ended.json["executed"] == ["normalize", "quality"]
    assert ended.json["version"] == "2"
    assert workspace.amopo("status", "--json").json["runs"] == runs


def assert_stopped(workspace: Workspace, ended: Finished) -> None:
    """Nobody works on, the champion stays, and nothing is said that only a programmer reads."""
    assert "Traceback" not in ended.err
    assert_none_left(workspace)
    assert workspace.versions() == {"champion": "1", "challenger": "1"}


def serve(workspace: Workspace, port: int) -> subprocess.Popen[Any]:
    """An MLflow server that answers."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", workspace.store, "--workers", "1"]
    server = subprocess.Popen(
        [*command, "--port", str(port)],
        cwd=workspace.path,
        env=workspace.env | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while True:
        assert server.poll() is None
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health").is_success:
                return server
        except httpx.TransportError:
            time.sleep(0.1)


def stop(server: subprocess.Popen[Any]) -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()
