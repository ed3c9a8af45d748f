import os
import signal
import subprocess
import sys
import time

import pytest

from tasks.errors import OutsideError
from tasks.turn import INGEST, give_back, own_turn

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


def test_who_waits_says_for_whom_and_then_has_the_turn(other):
    said = []
    code = "from tasks.turn import own_turn\nwith own_turn(wait=print): print('mine')"
    with subprocess.Popen([sys.executable, "-uc", code], stdout=subprocess.PIPE, text=True) as waiting:
        said.append(waiting.stdout.readline())
        other.stdin.close()  # the end of the other's work
        said += waiting.stdout.readlines()

    assert said == [f"waiting until the run of process {other.pid} has ended\n", "mine\n"]


WAITING = """
import signal
from tasks.turn import own_turn

signal.signal(signal.SIGINT, signal.default_int_handler)
import polars  # whose handler has the system go on with what it interrupts

with own_turn(wait=print):
    pass
"""


def test_ctrl_c_ends_the_wait(other):
    command = [sys.executable, "-uc", WAITING]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as waiting:
        waiting.stdout.readline()
        time.sleep(0.5)  # until it waits
        waiting.send_signal(signal.SIGINT)
        try:
            assert waiting.wait(timeout=30) == -signal.SIGINT
        finally:
            waiting.kill()


@pytest.mark.parametrize(("own", "said"), [("wait=print", 0), ("who=INGEST", 1)])
def test_an_ingest_is_waited_for_by_all_also_by_those_who_wait_for_no_run(tmp_path, monkeypatch, own, said):
    monkeypatch.chdir(tmp_path)
    code = f"from tasks.turn import INGEST, own_turn\nwith own_turn({own}): print('mine')"
    with own_turn(who=INGEST):
        waiting = subprocess.Popen(
            [sys.executable, "-uc", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        stream = (waiting.stdout, waiting.stderr)[said]
        assert stream.readline() == f"waiting until the amopo ingest of process {os.getpid()} has ended\n"
    out, err = waiting.communicate()

    assert (out, err, waiting.returncode) == ("mine\n", "", 0)


def test_of_two_starts_at_the_same_instant_one_works_ten_times(tmp_path, monkeypatch):
    """Both wait at a gate; whoever works leaves a trace, and looks for the other's."""
    monkeypatch.chdir(tmp_path)
    for _ in range(10):
        pair = [
            subprocess.Popen([sys.executable, "-c", RACE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        for process in pair:
            assert process.stdout.readline() == "ready\n"
        for process in pair:
            process.stdin.close()
        said = sorted(process.stdout.read() for process in pair)
        for process in pair:
            process.wait()
            process.stdout.close()

        assert said[1] == "worked alone\n"
        assert said[0].startswith("another run is at work in this folder") or said[0] == "worked alone\n"


RACE = """
import sys, time
from pathlib import Path
from tasks.errors import OutsideError
from tasks.turn import own_turn

print("ready", flush=True)
sys.stdin.read()
trace = Path("at work")
try:
    with own_turn():
        alone = not trace.exists()
        trace.touch()
        time.sleep(0.2)
        trace.unlink()
        print("worked alone" if alone else "worked beside another")
except OutsideError as error:
    print(error)
"""
