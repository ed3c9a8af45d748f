"""The note of the last retraining: whose it is, and what it says of one that did not end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.last_retraining import NOTE, LastRetraining, last_retraining, note_end, noted


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_end_is_noted_and_so_is_a_failure() -> None:
    with noted():
        assert not last_retraining().ended
    ended = last_retraining()
    with pytest.raises(ZeroDivisionError), noted():
        raise ZeroDivisionError

    assert ended.ended
    assert not last_retraining().ended
    assert last_retraining().began > ended.began


def test_who_only_waits_from_here_on_has_ended_and_leaves_the_note_of_a_newer_one_alone() -> None:
    with noted():
        note_end()
        waiting = last_retraining()
        newer = json.dumps({"began": waiting.began + 60, "ended": False, "process": 1})
        NOTE.write_text(newer)

    assert waiting.ended
    assert NOTE.read_text() == newer


def test_a_newer_one_that_began_before_the_end_keeps_its_note() -> None:
    with noted():
        NOTE.write_text(json.dumps({"began": last_retraining().began + 60, "ended": False}))

    assert not last_retraining().ended


def test_one_that_is_at_work_has_not_failed_and_one_whose_process_is_gone_has() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    assert not LastRetraining(1.0, ended=False, process=os.getpid()).failed
    assert LastRetraining(1.0, ended=False, process=gone.pid).failed
    assert LastRetraining(1.0, ended=False, process=os.getppid()).failed  # works elsewhere: the id was given anew
    assert LastRetraining(1.0, ended=False).failed  # a note of an earlier release
    assert not LastRetraining(1.0, ended=True).failed
