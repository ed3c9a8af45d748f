"""Processes that take steps in turn: in which order, and what is left where one of them fails."""

import os
from io import StringIO

import pytest
from rich.console import Console

from bench.training import rounds
from bench.training.measured import PRODUCTS, Measured
from bench.training.report import head_table
from bench.training.rounds import Result, in_turns
from bench.training.task import Lengths, Shape, Task

MEASURE = """
import json, os, sys, time
from bench.training.measured import MY_TURN

task = json.loads(sys.argv[2])

def note(what):
    with open(os.environ["NOTES"], "a") as notes:
        print(what, file=notes)

note(os.getpid())
for turn in range(task["steps"] + 1):
    print(MY_TURN, flush=True)
    if turn and task["variant"] == "killed":
        os.kill(os.getpid(), 9)
    sys.stdin.readline()
    if turn and task["variant"] == "broken":
        sys.exit("it is broken")
    note(task["variant"])
print(json.dumps({"seconds": [float(turn) for turn in range(task["steps"])]}))
"""


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """Where measuring processes, which measure nothing, say who they are and whose turn it is."""
    (tmp_path / "nothing_measured.py").write_text(MEASURE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("NOTES", str(tmp_path / "notes.txt"))
    monkeypatch.setattr(rounds, "MEASURE", "nothing_measured")
    return tmp_path / "notes.txt"


def task(variant, steps=2, vocabulary=256):
    shape = Shape(f"vocabulary {vocabulary}", vocabulary, hidden=32, layers=1, heads=2, key_heads=1, intermediate=64)
    return Task(variant, shape, "float32", 2, steps, 4096, lengths=Lengths((6, 20), (4, 12)), threads=1)


def test_steps_are_taken_in_turn(notes):
    found = in_turns([task("first"), task("second")])

    said = notes.read_text().split()
    assert said[2:6] == ["first", "second"] * 2
    assert [result.every_step for result in found] == [[0.0, 1.0]] * 2


@pytest.mark.parametrize("failing", ["killed", "broken"])
@pytest.mark.parametrize("place", [0, 1])
def test_one_that_fails_is_named_and_ends_all(notes, failing, place):
    """It is killed while it waits for its turn, or ends in it."""
    tasks = [task("first"), task("last")]
    tasks.insert(place, task(failing))

    with pytest.raises(SystemExit, match=f"{failing} (was killed, most likely for its memory|ended with 1\nit is)"):
        in_turns(tasks)

    pids = [int(line) for line in notes.read_text().split() if line.isdigit()]
    assert len(pids) == 3
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_engine_and_its_products_take_turns():
    ours, products = in_turns([task("ours"), task(PRODUCTS)])

    assert len(ours.every_step) == len(products.every_step) == 2
    assert 0 < min(products.every_step) < min(ours.every_step)
    assert ours.rounds[0].loss > 0


def test_what_a_vocabulary_costs_is_compared_turn_by_turn():
    """The median of the ratios: where the machine slows down, it slows both sides of a turn."""
    seconds = {
        ("ours", 10): [1.0, 1.0, 1.0],
        ("ours", 20): [2.0, 11.0, 13.0],
        (PRODUCTS, 10): [1.0, 1.0, 1.0],
        (PRODUCTS, 20): [2.0, 3.0, 11.0],
    }
    found = [
        Result(task(variant, vocabulary=size), True, [Measured(each)]) for (variant, size), each in seconds.items()
    ]
    console = Console(file=StringIO(), width=120)

    console.print(head_table(found))

    assert "1.20" in console.file.getvalue()
    assert "5.00" not in console.file.getvalue()
