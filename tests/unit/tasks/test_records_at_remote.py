"""Records and git's remote: what is recorded anew arrives there, and looking there moves nothing here."""

import subprocess
import sys
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from tasks.dvc import send
from tasks.git import find_commit
from tasks.snapshot import save


def git(*arguments: str, at: Path = Path()) -> str:
    author = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    command = ["git", *author, *arguments]
    return subprocess.run(command, cwd=at, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose remote is empty."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    git("init", "--quiet")
    (here / "params.yaml").write_text("seed: 0\n")
    git("add", "--all")
    git("commit", "--quiet", "--message", "first")
    git("init", "--quiet", "--bare", str(tmp_path / "remote"))
    git("remote", "add", "origin", str(tmp_path / "remote"))
    return here


def recorded(seed: int) -> str:
    Path("params.yaml").write_text(f"seed: {seed}\n")
    return save("retrain-1", "a run")


@pytest.mark.usefixtures("here")
def test_what_is_recorded_a_second_time_takes_the_place_of_the_first_at_the_remote(tmp_path: Path) -> None:
    for command in (["init", "--quiet"], ["remote", "add", "--default", "--quiet", "data", str(tmp_path / "data")]):
        subprocess.run([sys.executable, "-m", "dvc", *command], check=True)
    with disable_run_logger():
        first = recorded(1)
        send("retrain-1")
        second = recorded(2)
        send("retrain-1")

    assert first != second
    assert git("for-each-ref", "--format=%(objectname)", "refs/exps", at=tmp_path / "remote") == second


def test_looking_for_a_record_at_the_remote_brings_what_is_there_and_moves_none_that_is_here(
    here: Path, tmp_path: Path
) -> None:
    other = recorded(1)
    ref = git("for-each-ref", "--format=%(refname)", "refs/exps")
    git("push", "--quiet", "origin", ref, f"{ref}:{ref.replace('retrain-1', 'retrain-2')}")
    git("update-ref", "-d", ref)
    subprocess.run(["git", "clone", "--quiet", str(here), str(tmp_path / "clone")], check=True)
    git("remote", "set-url", "origin", str(tmp_path / "remote"), at=tmp_path / "clone")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "clone")
        mine = recorded(2)

        assert find_commit(other) == other
        assert find_commit("retrain-2") == other
        assert find_commit("retrain-1") == mine
        assert find_commit("retrain-3") is None
