"""The commit of a workspace: what is in it, and that nothing of the workspace moves, also where it is killed."""

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tasks.errors import OutsideError
from tasks.snapshot import save

KNOWN = {"params.yaml": "seed: 0\n", "code.py": "one\n", "gone.py": "old\n"}
SAVE = "from tasks.snapshot import save; save('retrain-1', 'a run')"


def git(*arguments: str) -> str:
    author = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.run(["git", *author, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A commit, and since: a change, a staged one with another above it, a new file, one removed, what a run makes."""
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    for name, content in KNOWN.items():
        Path(name).write_text(content)
    git("add", "--all")
    git("commit", "--quiet", "--message", "first")
    Path("params.yaml").write_text("seed: 1\n")
    Path("code.py").write_text("two\n")
    git("add", "code.py")
    Path("code.py").write_text("three\n")
    Path("new.py").write_text("new\n")
    git("add", "new.py")
    Path("gone.py").unlink()
    Path("dvc.lock").write_text("stages: {}\n")
    Path("mine.csv").write_text("not for the record\n")
    return tmp_path


def state() -> tuple[str, ...]:
    """All that must not move: files, index, branch, stash."""
    files = {path: path.read_text() for path in Path().iterdir() if path.is_file()}
    index = git("ls-files", "--stage")
    return (
        str(sorted(files.items())),
        index,
        git("symbolic-ref", "HEAD"),
        git("rev-parse", "HEAD"),
        git("stash", "list"),
    )


@pytest.mark.usefixtures("repository")
def test_it_holds_every_file_that_git_knows_and_what_runs_make() -> None:
    before = state()
    commit = save("retrain-1", "a run")
    listed = set(git("ls-tree", "-r", "--name-only", commit).splitlines())

    assert listed == {"params.yaml", "code.py", "new.py", "dvc.lock"}
    assert [git("show", f"{commit}:{name}") for name in ("params.yaml", "code.py")] == ["seed: 1", "three"]
    assert git("log", "-1", "--format=%P %s", commit) == f"{git('rev-parse', 'HEAD')} a run"
    head = git("rev-parse", "HEAD")
    assert git("rev-parse", f"refs/exps/{head[:2]}/{head[2:]}/retrain-1") == commit
    assert state() == before


@pytest.mark.usefixtures("repository")
def test_a_later_one_of_the_name_takes_its_place() -> None:
    first = save("retrain-1", "a run")
    Path("params.yaml").write_text("seed: 2\n")
    second = save("retrain-1", "a run")

    assert first != second
    assert git("for-each-ref", "--format=%(objectname)", "refs/exps") == second


def test_a_kill_at_any_moment_leaves_the_workspace_as_it_was(repository: Path) -> None:
    root = Path(__file__).parents[3]
    before, random = state(), Random(0)
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", SAVE], env=os.environ | {"PYTHONPATH": str(root)})
        try:
            process.wait(random.uniform(0, 0.4))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert state() == before
    assert save("retrain-1", "a run")


def test_what_git_refuses_is_said(repository: Path) -> None:
    (repository / ".git/refs/exps").write_text("in the way")

    with pytest.raises(OutsideError, match="the run could not be recorded: git update-ref"):
        save("retrain-1", "a run")
