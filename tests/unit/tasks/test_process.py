import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tasks.process import end_group, run_live


def test_lines_come_one_by_one_with_the_status() -> None:
    said: list[str] = []
    script = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"

    assert run_live([sys.executable, "-c", script], said.append) == (3, ["one", "two"])
    assert said == ["one", "two"]


def test_python_is_this_interpreter() -> None:
    _, [line] = run_live(["sh", "-c", "python -c 'import sys; print(sys.executable)'"], lambda line: None)

    assert Path(line).parent == Path(sys.executable).parent


@pytest.mark.parametrize("told", [None, BrokenPipeError])
def test_an_interrupted_command_takes_its_grandchildren_along(told: type[Exception] | None) -> None:
    """The line is said while the shell and its child sleep; what ends the caller ends both, whoever can be told."""
    said: list[str] = []

    def interrupt(line: str) -> None:
        said.append(line)
        if len(said) == 1:
            raise KeyboardInterrupt
        if told:
            raise told

    with pytest.raises(told or KeyboardInterrupt):
        run_live(["sh", "-c", "sleep 600 & echo $!; wait"], interrupt)

    assert ended(int(said[0]))
    assert said[1].startswith("interrupted: ending what is at work")


def test_a_group_that_ignores_the_request_is_ended_by_force() -> None:
    process = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo ready; while true; do sleep 1; done"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    end_group(process, grace=0.2)

    assert process.wait() == -signal.SIGKILL


ORPHAN = """
import os, sys, time

if os.fork() == 0:
    while os.getppid() != int(sys.argv[1]):
        time.sleep(0.01)
    print(os.getpid(), flush=True)
    os._exit(0)
"""
ADOPTING = """
import os, subprocess, sys, time
import psutil
from amopo_core.stages.command import adopt_orphans
from tasks.process import end_group

adopt_orphans()
command = [sys.executable, "-c", sys.argv[1], str(os.getpid())]
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as leader:
    orphan = psutil.Process(int(leader.stdout.readline()))
    while orphan.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    end_group(leader, grace=600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only there an orphan gets such a parent")
def test_who_has_ended_is_not_waited_for_though_its_new_parent_never_asks() -> None:
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", ADOPTING, ORPHAN]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=90)

    assert done.returncode == 0, done.stderr


SLOW = """
import pathlib, signal, sys, time

def save(*_):
    pathlib.Path("saving").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    pathlib.Path("saved").touch()
    sys.exit()

signal.signal(signal.SIGTERM, save)
pathlib.Path("ready").touch()
while True:
    signal.pause()
"""
RUNNING = """
import signal, sys
from tasks.process import run_live

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs do not have
run_live([sys.executable, "-c", sys.argv[1]], print)
"""


@pytest.mark.parametrize(("second", "is_saved"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_a_second_sigterm_leaves_the_child_its_time_and_ctrl_c_does_not(
    tmp_path: Path, second: signal.Signals, is_saved: bool
) -> None:
    command = [sys.executable, "-c", RUNNING, SLOW]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.DEVNULL) as process:
        appears(tmp_path / "ready", process)
        process.send_signal(signal.SIGTERM)
        appears(tmp_path / "saving", process)
        process.send_signal(second)
        time.sleep(0.5)  # for as long as a child that is cut short would need to go
        (tmp_path / "go").touch()

    assert (tmp_path / "saved").exists() == is_saved
    assert process.returncode == (143 if is_saved else -signal.SIGINT)


SILENT = """
import signal, sys
from tasks.process import run_live

signal.signal(signal.SIGINT, signal.default_int_handler)
import polars  # whose handler has the system go on with what it interrupts

run_live(["sh", "-c", "echo ready; sleep 90"], lambda line: print(line, flush=True))
"""


def test_ctrl_c_does_not_wait_for_the_next_line() -> None:
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", SILENT]
    with subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)  # until it waits for another
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)

    assert said.startswith("interrupted: ending what is at work")
    assert process.returncode == -signal.SIGINT


def appears(file: Path, process: subprocess.Popen[bytes]) -> None:
    while not file.exists():
        assert process.poll() is None
        time.sleep(0.01)


def ended(pid: int) -> bool:
    """Whether the process is gone, or will be in a moment."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for _ in range(100):
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            time.sleep(0.05)
        return False
    return True
