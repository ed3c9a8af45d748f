"""Feedback that waits in the inbox while a run is at work."""

from pathlib import Path

import pytest

from tasks.laid_in import lay_in, turn_to_ingest
from tasks.turn import own_turn


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_feedback_may_change_as_long_as_no_run_has_the_turn() -> None:
    with turn_to_ingest() as before:
        pass
    with own_turn(), turn_to_ingest() as beside_a_run:
        pass
    with turn_to_ingest() as after:
        pass

    assert (before, beside_a_run, after) == (True, False, True)


def test_a_file_waits_once_and_another_of_its_name_beside_it(folder: Path) -> None:
    file = folder / "ratings.jsonl"
    for content in ("one", "one", "two"):
        file.write_text(content)
        lay_in([file], "support")

    waiting = {path.name: path.read_text() for path in (folder / "data/inbox/support").iterdir()}
    assert waiting == {"ratings.jsonl": "one", "2-ratings.jsonl": "two"}
