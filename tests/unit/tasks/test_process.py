import signal
import subprocess
import sys
import time
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


def test_an_interrupted_command_takes_its_grandchildren_along() -> None:
    """The line is said while the shell and its child sleep; what ends the caller ends both."""
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_live(["sh", "-c", "sleep 600 & echo $!; wait"], interrupt)

    assert ended(pids[0])


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


def ended(pid: int) -> bool:
    """Whether the process is gone, or will be in a moment."""
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False
