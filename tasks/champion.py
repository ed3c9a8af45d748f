"""The champion's folder: what evaluate-champion measures, brought from the registry and kept by DVC."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from amopo_core.atomic import write_json
from tasks.checkpoint import bring
from tasks.dvc_command import CHAMPION
from tasks.no_champion import write_no_champion
from tasks.registry import POLICY_TAG, Version

_IDENTITY = "champion.json"
_SCRATCH = Path(".amopo/champion")
"""Where a champion is put together: on the same disk, in no folder that is recorded; cleared before and after."""


@task(task_run_name="champion", cache_policy=NO_CACHE)
def bring_champion(champion: Version | None) -> None:
    """Bring models/champion in line with the registry; where it is so already nothing is copied."""
    if champion is None:
        get_run_logger().info("no champion yet: the candidate will be compared with the base policy")
        write_no_champion()
        return
    identity = {"policy": champion.tags.get(POLICY_TAG) or f"{champion.uri} of run {champion.run_id}"}
    if _identity() == identity:
        return
    get_run_logger().info("bringing the champion, version %s, to %s", champion.number, CHAMPION)
    with _scratch() as scratch:
        beside = scratch / "folder"
        bring(champion, beside)
        write_json(beside / _IDENTITY, identity)
        _replace(beside)


@contextmanager
def _scratch() -> Iterator[Path]:
    shutil.rmtree(_SCRATCH, ignore_errors=True)
    _SCRATCH.mkdir(parents=True)
    try:
        yield _SCRATCH
    finally:
        shutil.rmtree(_SCRATCH)


def _identity() -> object:
    path = CHAMPION / _IDENTITY
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _replace(beside: Path) -> None:
    shutil.rmtree(CHAMPION, ignore_errors=True)
    CHAMPION.parent.mkdir(exist_ok=True)  # not there in a new clone that works with an MLflow server in use
    beside.rename(CHAMPION)
