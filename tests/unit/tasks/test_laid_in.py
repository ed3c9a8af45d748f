"""Feedback that waits in the inbox while a run is at work."""

from pathlib import Path

import pytest

from tasks.laid_in import lay_in, run_at_work
from tasks.turn import own_turn


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_is_at_work_as_long_as_it_has_the_turn() -> None:
    assert not run_at_work()
    with own_turn():
        assert run_at_work()
    assert not run_at_work()


def test_a_file_waits_once_and_another_of_its_name_beside_it(folder: Path) -> None:
    file = folder / "ratings.jsonl"
    for content in ("one", "one", "two"):
        file.write_text(content)
        lay_in([file], "support")

    waiting = {path.name: path.read_text() for path in (folder / "data/inbox/support").iterdir()}
    assert waiting == {"ratings.jsonl": "one", "2-ratings.jsonl": "two"}
