"""A recorded run made again: here, and in another clone that has the remotes alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow import MlflowClient

from tasks.lock import read_lock

if TYPE_CHECKING:
    from tests.flow.conftest import Workspace

pytestmark = pytest.mark.flow


def champion(workspace: Workspace) -> dict[str, str]:
    return dict(MlflowClient(workspace.store).get_model_version_by_alias("amopo", "champion").tags)


def test_the_champion_is_made_again_to_the_same_bytes_and_this_folder_stays(workspace: Workspace) -> None:
    before = workspace.git("status", "--porcelain"), (workspace.path / "dvc.lock").read_bytes()
    made = workspace.amopo("reproduce", "champion", "--json")

    assert made.code == 0, made.err
    assert made.json["same"]
    assert made.json["commit"] == champion(workspace)["commit"]
    recorded = read_lock(workspace.path / "dvc.lock").outputs
    assert {(output["stage"], output["path"]) for output in made.json["outputs"]} == {
        (stage, path) for stage, paths in recorded.items() for path in paths
    }
    assert "train: step 1/" in made.err
    assert (workspace.git("status", "--porcelain"), (workspace.path / "dvc.lock").read_bytes()) == before
    assert not list((workspace.path / ".amopo/reproduce").iterdir())
    assert workspace.git("worktree", "list").count("\n") == 1


def test_a_record_is_verified_without_training(workspace: Workspace) -> None:
    whole = workspace.amopo("reproduce", "--last", "--check", "--json")
    policy = read_lock(workspace.path / "dvc.lock").output("train", "models/policy")
    listing = workspace.path / ".dvc/cache/files/md5" / policy[:2] / policy[2:]
    content = listing.read_bytes()
    listing.chmod(0o644)
    listing.write_bytes(content.replace(b"model", b"modem"))
    listing.chmod(0o444)  # DVC takes it for whole
    try:
        broken = workspace.amopo("reproduce", "--last", "--check")
    finally:
        listing.unlink(missing_ok=True)
        listing.write_bytes(content)
        listing.chmod(0o444)

    assert whole.code == 0, whole.out + whole.err
    assert whole.json["whole"]
    assert "train: step" not in whole.err
    assert broken.code == 1
    said = "wrong  files of the record are not whole in the cache; 1 there were damaged, and there is no remote"
    assert said in broken.out


def test_a_run_is_sent_to_the_remotes_and_another_clone_makes_it_again_from_them_alone(
    workspace: Workspace, tmp_path: Path
) -> None:
    remote, origin = str(tmp_path / "remote"), str(tmp_path / "origin.git")
    own = workspace.env | {"PREFECT_HOME": str(tmp_path / "prefect")}  # others count what Prefect keeps
    here = type(workspace)(shutil.copytree(workspace.path, tmp_path / "here"), own)
    subprocess.run(["git", "clone", "--quiet", "--bare", str(here.path), origin], check=True)
    here.git("remote", "add", "origin", origin)
    assert here.dvc("remote", "add", "--default", "folder", remote).returncode == 0
    retrained = here.amopo("retrain", "--set", "train.learning_rate=0.02")
    assert retrained.code == 0, retrained.err
    tags = dict(MlflowClient(here.store).get_model_version_by_alias("amopo", "challenger").tags)
    run = here.run_of("2")
    other = type(workspace)(
        tmp_path / "other", workspace.env | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/none.db"}
    )
    subprocess.run(["git", "clone", "--quiet", origin, str(other.path)], check=True)
    assert other.dvc("remote", "add", "--local", "--default", "folder", remote).returncode == 0

    made = other.amopo("reproduce", tags["commit"][:12], "--json")

    assert made.code == 0, made.err
    assert made.json["same"]
    assert run.data.tags["commit"] == tags["commit"]
    assert run.info.run_id in here.git("log", "-1", "--format=%B", tags["commit"])
    assert (tags["world_size"], tags["seed"], tags["launch"]) == ("1", "0", "configs/accelerate/cpu.yaml")
    assert json.loads(tags["packages"])["torch"] == version("torch")
    assert tags["device"].startswith("CPU ")


def test_plain_git_and_dvc_make_it_again(workspace: Workspace, tmp_path: Path) -> None:
    """Without this project's commands: check the record out, `dvc checkout`, `dvc repro`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{workspace.env['PATH']}"  # the environment is active
    again = type(workspace)(tmp_path / "again", workspace.env | {"PATH": path})
    workspace.git("worktree", "add", "--quiet", str(again.path), champion(workspace)["commit"])
    again.dvc("config", "--local", "cache.dir", str(workspace.path / ".dvc/cache"))
    lock = (again.path / "dvc.lock").read_bytes()
    brought = again.dvc("checkout", "data/feedback", "models/champion")
    repro = again.dvc("repro", "--force", "--no-run-cache", "pairs")

    assert brought.returncode == 0, brought.stderr
    assert repro.returncode == 0, repro.stderr
    assert "Running stage 'pairs'" in repro.stdout
    assert (again.path / "dvc.lock").read_bytes() == lock
    workspace.git("worktree", "remove", "--force", str(again.path))
    shutil.rmtree(again.path, ignore_errors=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["77"], "there is no version 77; `amopo status` lists versions"),
        (["nobody"], "no recorded run is called nobody; expected a version's number"),
        (["HEAD"], "holds no dvc.lock: it is no recorded run"),
        ([], "name the run to make again, such as champion or 3, or give --last; one of the two"),
        (["1", "--last"], "one of the two"),
    ],
)
def test_what_is_no_recorded_run(workspace: Workspace, arguments: list[str], said: str) -> None:
    refused = workspace.amopo("reproduce", *arguments)

    assert refused.code == 2
    assert said in refused.err
    assert "Traceback" not in refused.err


def test_code_that_git_does_not_know_is_refused_by_name(workspace: Workspace) -> None:
    new = workspace.path / "amopo_core/new_idea.py"
    new.touch()
    try:
        refused = workspace.amopo("retrain")
    finally:
        new.unlink()

    assert refused.code == 2
    assert "git does not know amopo_core/new_idea.py" in refused.err
