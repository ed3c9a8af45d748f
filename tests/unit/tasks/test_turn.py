import subprocess
import sys

import pytest

from tasks.errors import OutsideError
from tasks.turn import give_back, own_turn

HOLD = """
import sys
from tasks.turn import own_turn

with own_turn():
    print("mine", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path, monkeypatch):
    """Another process that is at work in this folder."""
    monkeypatch.chdir(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "mine\n"
        yield process
        process.kill()


def test_a_second_run_is_refused_and_told_whom_to_wait_for(other):
    with (
        pytest.raises(OutsideError, match=f"another run is at work in this folder \\(process {other.pid}\\)"),
        own_turn(),
    ):
        pass


def test_a_killed_run_leaves_its_turn(other):
    other.kill()
    other.wait()
    with own_turn():
        pass
    with own_turn():  # and so does one that ended
        pass


def test_a_turn_that_was_given_back_is_anybodys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with own_turn():
        give_back()
        taken = subprocess.run([sys.executable, "-c", HOLD], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    give_back()  # nothing is held any more

    assert taken.stdout == "mine\n", taken.stderr
