"""A DVC remote on S3, at an endpoint on this machine: what is sent there is enough to verify a record elsewhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from mlflow import MlflowClient

if TYPE_CHECKING:
    from tests.flow.conftest import Workspace

pytestmark = pytest.mark.flow

pytest.importorskip("dvc_s3", reason="dvc-s3 is not installed: pip install -c constraints.txt -e '.[s3]'")
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def endpoint(free_port: int) -> Iterator[str]:
    """The address of an S3 endpoint that holds an empty bucket `runs`."""
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(free_port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{free_port}"
    try:
        while True:
            assert server.poll() is None
            try:
                if httpx.put(f"{url}/runs").is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        yield url
    finally:
        server.kill()
        server.wait()


def test_a_record_is_whole_in_a_clone_that_has_git_and_s3_alone(
    workspace: Workspace, endpoint: str, tmp_path: Path
) -> None:
    commit = MlflowClient(workspace.store).get_model_version_by_alias("amopo", "champion").tags["commit"]
    here = type(workspace)(shutil.copytree(workspace.path, tmp_path / "here"), workspace.env | KEYS)
    origin = str(tmp_path / "origin.git")
    subprocess.run(["git", "clone", "--quiet", "--bare", str(here.path), origin], check=True)
    here.git("push", "--quiet", origin, "refs/exps/*:refs/exps/*")
    name_remote(here, endpoint)
    pushed = here.dvc("push")
    assert pushed.returncode == 0, pushed.stderr

    nowhere = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/none.db"}
    other = type(workspace)(tmp_path / "other", here.env | nowhere)
    subprocess.run(["git", "clone", "--quiet", origin, str(other.path)], check=True)
    name_remote(other, endpoint)
    checked = other.amopo("reproduce", commit, "--check", "--json")

    assert checked.code == 0, checked.err
    assert checked.json["whole"], checked.json


def name_remote(workspace: Workspace, endpoint: str) -> None:
    for arguments in (["add", "--default", "s3", "s3://runs/amopo"], ["modify", "s3", "endpointurl", endpoint]):
        done = workspace.dvc("remote", arguments[0], "--local", *arguments[1:])
        assert done.returncode == 0, done.stderr
