"""What a user can get wrong at the command line: exit 2, a message that mends it, nothing changed, no traceback."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.flow.conftest import Finished, Workspace

pytestmark = pytest.mark.flow

ZIPPED = gzip.compress(b'{"prompt": "a", "response": "b", "help": 1}\n' * 100, mtime=0)


def assert_refused(ended: Finished, *said: str) -> None:
    assert ended.code == 2, ended.err
    assert "Traceback" not in ended.err
    for text in said:
        assert text in ended.err


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("train.learning_rat=0.1", "did you mean learning_rate?"),
        ("train.learning_rate=fast", "train.learning_rate"),
        ("train.epochs=1.5", "train.epochs"),
        ("promotion.tolerance={wit: 0.1}", "promotion.tolerance.wit: not among the declared dimensions"),
        ("training.epochs=1", "there is no `training`"),
        ("train.epochs", "expected section.key=value"),
        ("evaluation.judge=no/such.py", "evaluation.judge: no/such.py is no file"),
    ],
)
def test_a_parameter_that_is_none(new: Workspace, assignment: str, said: str) -> None:
    before = (new.path / "params.yaml").read_text()

    assert_refused(new.amopo("retrain", "--set", assignment), said)
    assert (new.path / "params.yaml").read_text() == before


def test_a_misspelt_key_in_the_file_is_named_with_its_line(new: Workspace) -> None:
    params = new.path / "params.yaml"
    before = params.read_text()
    line = before.splitlines().index("  warmup_fraction: 0.1") + 1
    params.write_text(before.replace("  warmup_fraction: 0.1", "  warmup_fractoin: 0.1"))
    try:
        assert_refused(new.amopo("retrain"), f"params.yaml:{line}: train.warmup_fractoin: no such key")
    finally:
        params.write_text(before)


def test_elsewhere_than_in_the_root(new: Workspace, tmp_path: Path) -> None:
    elsewhere = type(new)(tmp_path, new.env | {"PYTHONPATH": str(new.path)})

    said = "is not the project's root: no dvc.yaml, params.yaml, amopo_core here; cd there"
    assert_refused(elsewhere.amopo("status"), said)
    assert not list(tmp_path.iterdir())


def test_without_its_parameters(new: Workspace) -> None:
    params, away = new.path / "params.yaml", new.path / "away.yaml"
    params.rename(away)
    try:
        said = "is not the project's root: no params.yaml here; cd there, or bring it back with git"
        assert_refused(new.amopo("status"), said)
    finally:
        away.rename(params)


def test_no_git_installed(new: Workspace, tmp_path: Path) -> None:
    assert_refused(new.amopo("retrain", env={"PATH": str(tmp_path)}), "git is not installed")


def test_no_repository(new: Workspace, tmp_path: Path) -> None:
    copy = type(new)(tmp_path / "copy", new.env)
    shutil.copytree(new.path, copy.path, ignore=shutil.ignore_patterns(".git"))

    assert_refused(copy.amopo("retrain"), "is no git repository that can be used")


def test_a_foreign_repository(new: Workspace, tmp_path: Path) -> None:
    inside = type(new)(tmp_path / "copy", new.env)
    shutil.copytree(new.path, inside.path, ignore=shutil.ignore_patterns(".git"))
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)

    assert_refused(inside.amopo("retrain"), "lies in a foreign git repository")


def test_a_repository_that_does_not_hold_the_project(new: Workspace, tmp_path: Path) -> None:
    copy = type(new)(tmp_path / "copy", new.env)
    shutil.copytree(new.path, copy.path, ignore=shutil.ignore_patterns(".git"))
    copy.git("init", "--quiet")

    assert_refused(copy.amopo("retrain"), "a foreign one: it does not hold dvc.yaml")


def test_a_merge_in_progress(new: Workspace) -> None:
    for branch, text in (("theirs", "1"), ("ours", "2")):
        new.git("checkout", "--quiet", "-b", branch, "HEAD" if branch == "theirs" else "HEAD~1")
        (new.path / "NOTES").write_text(text)
        new.git("add", "NOTES")
        new.git("commit", "--quiet", "--message", branch)
    with pytest.raises(subprocess.CalledProcessError):
        new.git("merge", "theirs")
    try:
        assert_refused(new.amopo("retrain"), "a merge is in progress", "git merge --abort")
    finally:
        new.git("merge", "--abort")


def test_a_rebase_in_progress(new: Workspace) -> None:
    (new.path / ".git/rebase-merge").mkdir()
    try:
        assert_refused(new.amopo("retrain"), "a rebase is in progress", "git rebase --abort")
    finally:
        (new.path / ".git/rebase-merge").rmdir()


def test_a_folder_that_cannot_be_written_to(new: Workspace) -> None:
    assert_refused(with_read_only(new, new.path, "retrain"), "cannot be written to")


def test_feedback_that_cannot_be_written_to(new: Workspace, ratings: Path) -> None:
    folder = new.path / "data/feedback"
    folder.mkdir()
    try:
        said = "data/feedback/ratings", "make it readable and writable"
        assert_refused(with_read_only(new, folder, "ingest", str(ratings), "--source", "ratings"), *said)
    finally:
        shutil.rmtree(folder)


def test_a_file_where_the_folder_of_the_feedback_must_be(new: Workspace, ratings: Path) -> None:
    file = new.path / "data/feedback"
    file.write_text("")
    try:
        said = "data/feedback is a file where a folder must be: move it away"
        assert_refused(new.amopo("ingest", str(ratings), "--source", "ratings"), said)
        assert_refused(new.amopo("retrain"), said)
    finally:
        file.unlink()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("ratings.jsonl", b"", "holds no rows"),
        ("ratings.jsonl", b'{"prompt": "a", "resp', "ratings.jsonl:1: the file ends within this row"),
        ("ratings.jsonl", b'{"prompt": "\xff"}\n', "is not UTF-8"),
        ("ratings.jsonl", None, "is not here"),
        ("ratings.jsonl.gz", ZIPPED[:-10], "the gzip data is damaged or cut off"),
        ("ratings.jsonl.gz", ZIPPED[:-8] + bytes(8), "the gzip data is damaged or cut off"),
        (
            "ratings.jsonl.gz",
            b'{"prompt": "a", "response": "b", "help": 1}\n',
            "is not compressed, though its suffix says .gz",
        ),
    ],
)
def test_a_feedback_file_that_is_none(
    new: Workspace, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)

    assert_refused(new.amopo("ingest", str(file), "--source", "ratings"), said)
    assert not (new.path / "data/feedback").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--source", "nobody"], "nobody is not among the sources of params.yaml; name a FILE"),
        (["--source", "ratings"], "name a FILE: amopo ingest FILE --source ratings"),
        (["--source", "ratings", "--dry-run"], "sources.ratings.fetch: names no system to take rows from"),
    ],
)
def test_nothing_to_ingest_from(new: Workspace, arguments: list[str], said: str) -> None:
    assert_refused(new.amopo("ingest", *arguments), said)
    assert not (new.path / "data/feedback").exists()


def test_a_file_without_a_source_in_the_inbox_stays_there(new: Workspace) -> None:
    lost = new.path / "data/inbox/lost.jsonl"
    lost.parent.mkdir(parents=True, exist_ok=True)
    lost.write_text("{}\n")
    try:
        assert_refused(new.amopo("retrain"), "data/inbox/lost.jsonl: whose feedback is it?")
        assert lost.exists()
    finally:
        lost.unlink()


@pytest.fixture(scope="module")
def new(fresh: Workspace) -> Workspace:
    """A workspace in which nothing has run, put back by whoever changes it."""
    (fresh.path / "SECOND").write_text("")
    fresh.git("add", "SECOND")
    fresh.git("commit", "--quiet", "--message", "A second commit")
    return fresh


@pytest.fixture
def ratings(tmp_path: Path) -> Path:
    """A file of feedback without a fault."""
    file = tmp_path / "ratings.jsonl"
    file.write_text('{"prompt": "Why?", "response": "Because.", "helpfulness": 5}\n')
    return file


def with_read_only(new: Workspace, folder: Path, *arguments: str) -> Finished:
    """A command while a folder cannot be written to; root, whom modes do not stop, gets a read-only mount."""
    if os.geteuid() != 0:
        folder.chmod(0o555)
        try:
            return new.amopo(*arguments)
        finally:
            folder.chmod(0o755)
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && cd "$(pwd)" && exec "$@"'
    mounted = ["unshare", "--mount", "sh", "-c", mount, str(folder)]
    if subprocess.run([*mounted, "true"], cwd=new.path, capture_output=True).returncode:
        pytest.skip("root without the right to mount writes everywhere")
    return new.amopo(*arguments, through=mounted)
