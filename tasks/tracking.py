"""MLflow's tracking: one run a training, with its parameters, history, metrics, data and pictures."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from amopo_core.config import Params
from tasks.address import quoted, shown
from tasks.errors import OutsideError
from tasks.history import HistoryFollower, Row, batches, read_history
from tasks.mlflow_failure import is_mlflow_failure
from tasks.run_note import NOTE_TAG, run_note
from tasks.store import ensure_store
from tasks.workspace import workspace_id

EXPERIMENT = "amopo"
HISTORY = Path("reports/train/history.jsonl")
TRAINING_LOGS = Path("logs/train")
"""How fast a training went and where its time went: no output of a stage, since no two runs take the same time."""
SPEED, TIMES = TRAINING_LOGS / "speed.jsonl", TRAINING_LOGS / "summary.json"
QUALITY = Path("reports/quality")
MANIFEST_FILE = Path("data/pairs/manifest.parquet")
"""The rows of feedback behind the pairs of a run."""
EVALUATION = Path("reports/evaluate")
PICTURED = (EVALUATION, HISTORY.parent)
"""Where a run's own pictures are, those of the quality report apart; `reports/compare` has those of other versions."""
GUARDRAILS = Path("reports/guardrails/report.json")
VERSION_TAG = "version"
"""Tag of a run: the version that came out of it."""
COMMIT_TAG = "commit"
"""Tag of a run and of a version: the git commit that records it."""
WORKSPACE_TAG = "workspace"
"""Tag of a run: the folder it worked in, as a digest."""
_OVERALL = ("judge/all_dimensions/difference", "accuracy/all_dimensions/difference")
"""The overall difference to the base policy: by a judge, else by ranking."""
_PARAM_BATCH = 100


@contextmanager
def reaching_mlflow() -> Iterator[None]:
    """Says where MLflow was looked for, and that nothing is lost, where it does not answer."""
    try:
        ensure_store(mlflow.get_tracking_uri())
        yield
    except Exception as error:
        if not is_mlflow_failure(error):
            raise
        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        raise OutsideError(
            f"MLflow at {shown(uri)} did not do what was asked: {quoted(error, uri, 300)}\n"
            "Once it answers, run the same command again: what is trained is kept and is not trained again."
        ) from None  # Prefect's log shows causes, and this one may repeat a password


@contextmanager
def tracked_run() -> Iterator[str]:
    """The id of a new run, which ends as the block ends: finished or failed.

    A run of this workspace that has not ended was killed without a word: it ends here.
    """
    with reaching_mlflow():
        client, tags = MlflowClient(), {WORKSPACE_TAG: workspace_id()}
        experiment = _experiment(client)
        _end_killed(client, experiment)
        run_id = client.create_run(experiment, tags=tags, run_name="retrain").info.run_id
    try:
        yield run_id
    except BaseException as error:  # what is no Exception comes of Ctrl-C, SIGTERM and cancelling
        _end_unfinished(client, run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    with reaching_mlflow():
        client.set_terminated(run_id)


def follow_history(run_id: str) -> HistoryFollower:
    """Sends the training history to the run while the block trains; MLflow may be down meanwhile."""
    return HistoryFollower(HISTORY, lambda rows: _send(run_id, rows))


def clear_training_logs() -> None:
    """Remove what an earlier training left of its times: where DVC finds this one done, there is nothing to send."""
    shutil.rmtree(TRAINING_LOGS, ignore_errors=True)


def follow_speed(run_id: str) -> HistoryFollower:
    """Sends tokens and pairs per second to the run while the block trains, as `speed/…`."""
    return HistoryFollower(SPEED, lambda rows: _send(run_id, speed_rows(rows)))


def name_version(run_id: str, number: str, commit: str | None = None) -> None:
    """Write on the run which version it came to, and the commit that records it."""
    with reaching_mlflow():
        MlflowClient().set_tag(run_id, VERSION_TAG, number)
        if commit:
            MlflowClient().set_tag(run_id, COMMIT_TAG, commit)


def tag_run(run_id: str, tags: Mapping[str, str]) -> None:
    """Write on the run what its version carries: commit, digests, seed, packages, device, ranks."""
    with reaching_mlflow():
        MlflowClient().log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


@task(task_run_name="history", cache_policy=NO_CACHE)
def log_history(run_id: str, already_sent: int) -> None:
    """Send what of the training history has not been sent."""
    rows = read_history(HISTORY)[already_sent:]
    with reaching_mlflow():
        for batch in batches(rows):
            _send(run_id, batch)
    if rows:
        get_run_logger().info("sent %d lines of the training history", len(rows))


@task(task_run_name="times", cache_policy=NO_CACHE)
def log_times(run_id: str, already_sent: int) -> None:
    """Send what of the speed has not been sent, where the time went as `time/…`, and both files; none where none is."""
    if not TRAINING_LOGS.exists():
        return
    rows = read_history(SPEED)[already_sent:] if SPEED.exists() else []
    with reaching_mlflow():
        for batch in batches(speed_rows(rows)):
            _send(run_id, batch)
        if TIMES.exists():
            numbers = time_metrics(json.loads(TIMES.read_text(encoding="utf-8")))
            now = _now()
            MlflowClient().log_batch(run_id, metrics=[Metric(name, value, now, 0) for name, value in numbers.items()])
        MlflowClient().log_artifacts(run_id, str(TRAINING_LOGS), str(TRAINING_LOGS))


def speed_rows(rows: Sequence[Row]) -> list[Row]:
    """Lines of speed.jsonl as metrics: `speed/NAME` beside the step; what is no number is left out."""
    return [{"step": row["step"]} | _numbers("speed", row, leave_out="step") for row in rows]


def time_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """summary.json as metrics: `time/PART` of its seconds, `speed/NAME/whole_run` of its other numbers."""
    whole = _numbers("speed", summary, leave_out="seconds")
    return _numbers("time", summary.get("seconds", {})) | {f"{name}/whole_run": value for name, value in whole.items()}


@task(task_run_name="results", cache_policy=NO_CACHE)
def log_results(run_id: str, params: Params, datasets: Mapping[str, str]) -> None:
    """Add to the run what it was made with and what came out: parameters, data, final numbers, reports, pictures.

    Args:
        run_id: the run.
        params: params.yaml.
        datasets: DVC's digest of each data folder.
    """
    with reaching_mlflow():
        client = MlflowClient()
        _log_params(client, run_id, params)
        numbers = json.loads((EVALUATION / "report.json").read_text(encoding="utf-8"))
        numbers |= _numbers("guardrails", json.loads(GUARDRAILS.read_text(encoding="utf-8")))
        now = _now()
        client.log_batch(run_id, metrics=[Metric(name, value, now, 0) for name, value in numbers.items()])
        client.set_tag(run_id, NOTE_TAG, run_note((EVALUATION / "report.md").read_text(encoding="utf-8")))
        client.log_inputs(run_id, datasets=[_dataset(path, digest) for path, digest in datasets.items()])
        for file in (
            EVALUATION / "report.md",
            *sorted(picture for folder in PICTURED for picture in folder.glob("*.png")),
        ):
            client.log_artifact(run_id, str(file), str(file.parent))
        client.log_artifacts(run_id, str(QUALITY), str(QUALITY))
        client.log_artifact(run_id, str(MANIFEST_FILE), "data")


def log_decision(run_id: str, file: Path) -> None:
    """Keep the verdict with the run, whatever it is."""
    with reaching_mlflow():
        MlflowClient().log_artifact(run_id, str(file))


def last_runs(count: int = 5) -> list[dict[str, Any]]:
    """The newest runs, in JSON's types: when they started, how they ended, which version came out, how much better.

    Runs that were ended before they came to anything hide none that did: the newest of these are among them.
    """
    with reaching_mlflow():
        client = MlflowClient()
        experiment = _experiment(client)
        found = {
            run.info.run_id: run
            for which in ("", f"tags.{VERSION_TAG} != ''")
            for run in client.search_runs(
                [experiment], which, order_by=["attributes.start_time DESC"], max_results=count
            )
        }
    newest_first = sorted(found.values(), key=lambda run: run.info.start_time, reverse=True)
    return [_described(run) for run in newest_first]


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as `section.key` and value; an empty mapping is a value."""
    if not isinstance(value, Mapping) or not value:
        yield prefix, value
        return
    for key, inner in value.items():
        yield from flat(inner, f"{prefix}.{key}" if prefix else str(key))


def _experiment(client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return str(experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT))


def _end_killed(client: MlflowClient, experiment: str) -> None:
    unended = f"attributes.status = 'RUNNING' and tags.{WORKSPACE_TAG} = '{workspace_id()}'"
    for run in client.search_runs([experiment], unended):
        client.set_terminated(run.info.run_id, "KILLED")


def _end_unfinished(client: MlflowClient, run_id: str, status: str) -> None:
    try:
        client.set_terminated(run_id, status)
    except MlflowException as error:
        said = quoted(error, os.environ.get("MLFLOW_TRACKING_URI", ""), 160)
        get_run_logger().warning("the MLflow run %s could not be marked as ended: %s", run_id, said)


def _described(run: Run) -> dict[str, Any]:
    metrics = run.data.metrics
    started = datetime.fromtimestamp(run.info.start_time / 1000, tz=UTC)
    return {
        "started": started.isoformat(sep=" ", timespec="seconds"),
        "run": run.info.run_id,
        "status": run.info.status,
        "version": run.data.tags.get(VERSION_TAG),
        "overall_difference": next((metrics[name] for name in _OVERALL if name in metrics), None),
    }


def _log_params(client: MlflowClient, run_id: str, params: Params) -> None:
    pairs = iter([Param(key, str(value)) for key, value in flat(params.model_dump(mode="json"))])
    while batch := list(islice(pairs, _PARAM_BATCH)):
        client.log_batch(run_id, params=batch)


def _numbers(prefix: str, values: Mapping[str, Any], leave_out: str = "") -> dict[str, float]:
    return {
        f"{prefix}/{name}": float(value)
        for name, value in values.items()
        if name != leave_out and isinstance(value, int | float) and not isinstance(value, bool)
    }


def _send(run_id: str, rows: Sequence[Row]) -> None:
    now = _now()
    MlflowClient().log_batch(
        run_id,
        metrics=[
            Metric(name, value, now, round(row["step"]))
            for row in rows
            for name, value in row.items()
            if name != "step"
        ],
    )


def _dataset(path: str, digest: str) -> DatasetInput:
    """MLflow's own digest covers a table's first 10,000 rows; DVC's covers every byte."""
    return DatasetInput(Dataset(path, digest, source_type="dvc", source=json.dumps({"path": path, "md5": digest})))


def _now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return round(time.time() * 1000)
