"""`amopo ingest` keeps runs out for as long as it changes the feedback."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

from amopo_core.params_file import read_params
from flows.cli import exit_status
from tasks import dvc_command
from tasks.turn import TURN, own_turn

ROOT = Path(__file__).parents[3]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace without feedback, and a file with some."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "tests/params.yaml", tmp_path / "params.yaml")
    redactor = tmp_path / read_params().ingestion.redactor
    redactor.parent.mkdir(parents=True)
    shutil.copy(ROOT / redactor.relative_to(tmp_path), redactor)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "week.jsonl").write_text('{"prompt": "Why?", "response": "So."}\n')
    for command in (["init", "--quiet"], ["add", "dvc.yaml"]):
        subprocess.run(["git", *command], check=True)
    return tmp_path


def is_held() -> bool:
    with TURN.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.mark.usefixtures("project")
def test_it_has_the_turn_until_dvc_has_the_feedback(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(dvc_command, "add", lambda *_folders: seen.append(is_held()))

    assert exit_status(["ingest", "week.jsonl", "--source", "playground"]) == 0
    assert seen == [True]
    assert not is_held()


def test_beside_a_run_the_file_waits_in_the_inbox_and_a_source_is_left_to_the_run(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with own_turn():
        laid = exit_status(["ingest", "week.jsonl", "--source", "playground"])
        source = exit_status(["ingest", "--source", "playground"])

    assert (laid, source) == (0, 1)
    assert (project / "data/inbox/playground/week.jsonl").is_file()
    assert not (project / "data/feedback").exists()
    said = capsys.readouterr()
    assert "a run is at work: data/inbox/playground/week.jsonl waits for the next one" in said.out
    assert "a run is at work here" in said.err
