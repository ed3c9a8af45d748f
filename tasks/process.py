"""Child processes: output line by line, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

GRACE = 60.0
"""Time between the request to end and the end by force [seconds]."""


def run_live(
    command: Sequence[str],
    say: Callable[[str], None],
    extra: Mapping[str, str] | None = None,
) -> tuple[int, list[str]]:
    """The exit status and the lines of a command, each line said as it comes; `extra` is added to its environment.

    The command leads its own process group, which ends as a whole when this call is interrupted or cancelled.
    """
    lines = []
    signal.siginterrupt(signal.SIGINT, True)  # polars' handler would wait for the next line, which can be minutes away
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=child_environment() | dict(extra or {}),
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())
                say(lines[-1])
            return process.wait(), lines
        except BaseException as stop:
            try:
                if isinstance(stop, KeyboardInterrupt):
                    say("interrupted: ending what is at work, a training saves its step; Ctrl-C again does not wait")
            finally:
                end_group(process)
            raise


def end_group(process: subprocess.Popen[str], grace: float = GRACE) -> None:
    """Ask a process group to end, and end by force what is left of it after the grace time [seconds].

    SIGTERM does not cut that time short, however often it comes; Ctrl-C does.
    """
    with _sigterm_waits():
        _signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + grace
        try:
            while _is_at_work(process) and time.monotonic() < deadline:
                process.poll()  # a leader that nobody has waited for keeps its group alive
                time.sleep(0.05)
        finally:
            _signal_group(process, signal.SIGKILL)


@contextmanager
def _sigterm_waits() -> Iterator[None]:
    """SIGTERM within the block takes effect at its end."""
    if threading.current_thread() is not threading.main_thread():  # no handler runs in any other
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
        if came:
            signal.raise_signal(signal.SIGTERM)


def wait_for_descendants() -> None:
    """Wait until every process that this one started or adopted has ended; by force after the grace time."""
    left = psutil.Process().children(recursive=True)
    for process in psutil.wait_procs(left, timeout=GRACE)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def child_environment() -> dict[str, str]:
    """This process's environment with unbuffered lines, no progress bars, and `python` being this interpreter."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1"}


def _is_at_work(process: subprocess.Popen[str]) -> bool:
    """Whether anybody in the group is: not who has ended, and whom its new parent has not waited for.

    What outlives its parent gets another one: a service, which waits at its own end, or a container's first process,
    which may never do.
    """
    for each in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError):
            if os.getpgid(each.pid) == process.pid and each.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def _signal_group(process: subprocess.Popen[str], number: int) -> None:
    """Send a signal to all who are left in the group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
