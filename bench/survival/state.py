"""What a workspace holds that a kill must not change, and that a run must come to again."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from mlflow import MlflowClient

from amopo_core.data.batches import batches_of, declared_batches
from amopo_core.errors import UserError
from amopo_core.training.run_folder import CHECKPOINTS, is_whole
from tasks.registry import CHAMPION, DECISION_TAG, MODEL, VERDICT_TAG
from tests.flow.conftest import Workspace

FEEDBACK, INBOX, RUNS = Path("data/feedback"), Path("data/inbox"), Path(".amopo/checkpoints")
LEFT_SECONDS = 90.0
"""Time that what was killed has to end: ranks save first [seconds]."""


@dataclass(frozen=True)
class Result:
    """What an undisturbed run came to."""

    files: dict[str, str]
    """SHA-256 of the lock file, the policy's files and the reports, by path."""
    batches: frozenset[str]
    """SOURCE/BATCH: the name ends in the digest of the rows."""
    status: str
    """What git says of the folder."""
    champion: str
    versions: int
    verdict: str


def result_of(workspace: Workspace) -> Result:
    """What the workspace has come to."""
    client = MlflowClient(workspace.store)
    versions = client.search_model_versions(f"name = '{MODEL}'")
    newest = max(versions, key=lambda version: int(version.version))
    return Result(
        files=digests(workspace.path),
        batches=batches(workspace.path),
        status=workspace.git("status", "--porcelain") + workspace.git("stash", "list"),
        champion=champion(workspace),
        versions=len(versions),
        verdict=newest.tags.get(VERDICT_TAG, "none"),
    )


def differences(found: Result, expected: Result) -> list[str]:
    """What is not as in the undisturbed run; nothing where all is."""
    said = [f"{name} is {now}, undisturbed {then}" for name, now, then in _shown(found, expected) if now != then]
    other = sorted(path for path in found.files.keys() | expected.files.keys() if _differs(path, found, expected))
    return said + ([f"other bytes: {', '.join(other)}"] if other else [])


def _shown(found: Result, expected: Result) -> list[tuple[str, object, object]]:
    names = ("batches", "status", "champion", "versions", "verdict")
    return [(name, getattr(found, name), getattr(expected, name)) for name in names]


def _differs(path: str, found: Result, expected: Result) -> bool:
    return found.files.get(path) != expected.files.get(path)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of what a run makes, by path."""
    files = [folder / "dvc.lock", folder / "params.yaml"]
    files += [path for name in ("models/policy", "reports") for path in (folder / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files if path.exists()}


def batches(folder: Path) -> frozenset[str]:
    """The names of all batches."""
    sources = sorted(path.name for path in (folder / FEEDBACK).iterdir() if path.is_dir())
    return frozenset(f"{source}/{path.stem}" for source in sources for path in batches_of(folder / FEEDBACK, source))


def champion(workspace: Workspace) -> str:
    """The champion's number."""
    return str(MlflowClient(workspace.store).get_model_version_by_alias(MODEL, CHAMPION).version)


def harm(workspace: Workspace, before: Result, expected: Result) -> list[str]:
    """What a kill has done that it must not do; nothing where all is well.

    Args:
        workspace: where something was killed.
        before: what it held when the run started.
        expected: what the run would have come to.
    """
    said = []
    if left := _left_behind(workspace):
        said.append(f"left at work: {', '.join(left)}")
    now = batches(workspace.path)
    if not before.batches <= now <= expected.batches:
        said.append(f"batches {sorted(now)}, before {sorted(before.batches)}")
    if now != expected.batches and not any(path.is_file() for path in (workspace.path / INBOX).rglob("*.jsonl")):
        said.append("new feedback is neither in the inbox nor in a batch")
    try:
        declared_batches(workspace.path / FEEDBACK, {name.partition("/")[0] for name in now})
    except UserError as error:
        said.append(str(error))
    if (is_now := champion(workspace)) != before.champion and not _was_decided(workspace, is_now):
        said.append(f"the champion is version {is_now} without a decision, before {before.champion}")
    if digests(workspace.path)["params.yaml"] != before.files["params.yaml"]:
        said.append("params.yaml is another")
    if stashed := workspace.git("stash", "list"):
        said.append(f"stashed away: {stashed}")
    return said


def unfinished_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint of a training that was not finished; None where there is none."""
    runs = [run for run in (folder / RUNS).glob("*") if not (run / "published").exists()]
    whole = [path for run in runs for path in (run / CHECKPOINTS).glob("checkpoint-*") if is_whole(path)]
    return max((path.name for path in whole), key=lambda name: int(name.rpartition("-")[2]), default=None)


def _left_behind(workspace: Workspace) -> list[str]:
    deadline = time.monotonic() + LEFT_SECONDS
    while (left := workspace.processes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [f"process {process.pid}" for process in left]


def _was_decided(workspace: Workspace, number: str) -> bool:
    """Whether the version was made champion by the last step of a run, which writes the decision first."""
    tags = MlflowClient(workspace.store).get_model_version(MODEL, number).tags
    return bool(json.loads(tags.get(DECISION_TAG, "{}")).get("promote"))
