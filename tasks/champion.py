"""The champion's folder: what evaluate-champion measures, brought from the registry and kept by DVC."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from amopo_core.atomic import write_json
from tasks.dvc_command import CHAMPION
from tasks.no_champion import write_no_champion
from tasks.registry import POLICY_TAG, Version
from tasks.tracking import reaching_mlflow

_IDENTITY = "champion.json"


@task(task_run_name="champion", cache_policy=NO_CACHE)
def bring_champion(champion: Version | None) -> None:
    """Bring models/champion in line with the registry; where it is so already nothing is copied."""
    if champion is None:
        get_run_logger().info("no champion yet: the candidate will be compared with the base policy")
        write_no_champion()
        return
    identity = {"policy": champion.tags[POLICY_TAG]}
    if _identity() == identity:
        return
    get_run_logger().info("bringing the champion, version %s, to %s", champion.number, CHAMPION)
    with reaching_mlflow(), TemporaryDirectory(dir=CHAMPION.parent) as scratch:
        artifacts = Path(mlflow.artifacts.download_artifacts(champion.uri, dst_path=scratch))
        beside = Path(scratch) / "folder"
        shutil.copytree(artifacts / "model", beside)
        shutil.copytree(artifacts / "components" / "tokenizer", beside, dirs_exist_ok=True)
        write_json(beside / _IDENTITY, identity)
        _replace(beside)


def _identity() -> object:
    path = CHAMPION / _IDENTITY
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _replace(beside: Path) -> None:
    shutil.rmtree(CHAMPION, ignore_errors=True)
    beside.rename(CHAMPION)
