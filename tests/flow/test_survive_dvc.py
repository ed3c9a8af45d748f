"""What a kill, a failing disk or a failing remote leaves of DVC's files, in a small project of real DVC and git."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from tasks import dvc
from tasks.errors import OutsideError
from tasks.leftovers import PATH_LOCKS, clear_leftovers
from tasks.lock import read_lock
from tasks.verified import drop_damaged, names_in

PIPELINE = """
stages:
  pairs:
    cmd: mkdir -p data/pairs && cp data/feedback/rows data/pairs/train && cp data/feedback/rows data/pairs/test
    deps: [data/feedback]
    outs: [data/pairs]
  train:
    cmd: mkdir -p models && cat data/pairs/train data/pairs/train > models/policy
    deps: [data/pairs]
    outs: [models/policy]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose two stages have run on `first`, then on `second`."""
    folder = tmp_path_factory.mktemp("dvc") / "project"
    (folder / "data/feedback").mkdir(parents=True)
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / ".gitignore").write_text("/data/feedback\n/data/pairs\n/models/policy\n")
    with pytest.MonkeyPatch.context() as patch, disable_run_logger():
        patch.chdir(folder)
        for command in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
            subprocess.run(command, check=True)
        for rows in ("first", "second"):
            run(rows)
        commit = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "-m", "made"]
        for command in (["git", "add", "--all"], commit):
            subprocess.run(command, check=True)
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it, to work in."""
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "project"))
    with disable_run_logger():
        yield tmp_path / "project"


def run(rows: str) -> list[bool]:
    """Feedback of those rows; whether each stage ran for it."""
    Path("data/feedback/rows").write_text(rows)
    dvc.run_dvc("add", "--quiet", "data/feedback")
    return [dvc.run_stage.fn(stage).executed for stage in ("pairs", "train")]


def cached(name: str) -> Path:
    return Path(".dvc/cache/files/md5") / name[:2] / name[2:]


def damage(name: str) -> None:
    """Change one byte, as a disk does: size and permissions stay."""
    path = cached(name)
    mode, content = path.stat().st_mode, bytearray(path.read_bytes())
    content[0] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(mode)


@pytest.mark.usefixtures("project")
def test_a_damaged_file_of_the_cache_is_never_used() -> None:
    assert run("first") == [False, False]  # brought from the cache
    policy = read_lock().outputs["train"]["models/policy"]
    run("second")
    damage(policy)

    assert run("first") == [False, True]
    assert Path("models/policy").read_text() == "firstfirst"
    assert drop_damaged(names_in(Path())) == []
    assert cached(policy).read_text() == "firstfirst"


@pytest.mark.usefixtures("project")
def test_a_damaged_file_in_a_folder_is_found_too() -> None:
    run("first")
    listing = cached(read_lock().outputs["pairs"]["data/pairs"])
    run("second")
    damage(json.loads(listing.read_text())[0]["md5"])

    assert run("first")[0]
    assert Path("data/pairs/train").read_text() == "first"


@pytest.mark.usefixtures("project")
def test_what_is_recorded_is_whole_in_the_cache() -> None:
    policy = read_lock().outputs["train"]["models/policy"]
    damage(policy)
    dvc.record.fn("retrain-1", "a run")

    assert cached(policy).read_text() == "secondsecond"
    assert drop_damaged(names_in(Path())) == []


@pytest.mark.usefixtures("project")
def test_a_remote_that_fails_half_way_is_said_and_the_next_start_completes_it(tmp_path: Path) -> None:
    names = names_in(Path())
    policy = read_lock().outputs["train"]["models/policy"]
    remote = tmp_path / "remote/files/md5"
    in_the_way = remote / policy[:2]
    in_the_way.parent.mkdir(parents=True)
    in_the_way.touch()
    dvc.run_dvc("remote", "add", "--default", "--quiet", "store", str(tmp_path / "remote"))

    with pytest.raises(OutsideError, match="not all data could be sent to the DVC remote, so nothing is registered"):
        dvc.record.fn("retrain-1", "a run")
    in_the_way.unlink()
    dvc.record.fn("retrain-1", "a run")

    assert all((remote / name[:2] / name[2:]).is_file() for name in names)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_lock_file_that_was_cut_short_is_found_again_in_the_run_cache(share: float) -> None:
    lock = Path("dvc.lock")
    whole = lock.read_text()
    lock.write_text(whole[: int(share * len(whole))])
    clear_leftovers()

    assert [dvc.run_stage.fn(stage).executed for stage in ("pairs", "train")] == [False, False]
    assert lock.read_text() == whole


@pytest.mark.usefixtures("project")
def test_a_pointer_that_was_cut_short_is_written_again() -> None:
    pointer = Path("data/feedback.dvc")
    whole = pointer.read_text()
    pointer.write_text(whole[:20])
    said = clear_leftovers()
    dvc.run_dvc("add", "--quiet", "data/feedback")

    assert said == ["data/feedback.dvc was cut short: DVC finds out anew what it held"]
    assert pointer.read_text() == whole


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("content", ["", '{"write": {', '{"write": {"data/pairs": {"pid": OWN, "cmd": "dvc repro"}}}'])
def test_path_locks_of_a_killed_dvc_keep_nobody_out(content: str) -> None:
    """The number of the process that was killed may be another's by now."""
    PATH_LOCKS.write_text(content.replace("OWN", str(os.getpid())))
    assert clear_leftovers() == []

    assert not PATH_LOCKS.exists()
    assert dvc.run_stage.fn("pairs").executed is False


def test_path_locks_of_a_dvc_at_work_stay(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages: {pairs: {cmd: sleep 60, deps: [data/feedback], outs: [data/pairs]}}")
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"], stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while not PATH_LOCKS.exists() or "data/pairs" not in PATH_LOCKS.read_text():
            assert process.poll() is None
            time.sleep(0.05)
        clear_leftovers()
        assert PATH_LOCKS.exists()
    finally:
        os.killpg(process.pid, 9)
        process.wait()
