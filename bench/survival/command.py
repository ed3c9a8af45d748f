"""A command at work: what it has said so far, and the processes that came of it."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from contextlib import suppress

import psutil  # type: ignore[import-untyped]

LIMIT = 1200.0
"""Longest time that a command may take; then it hangs, and is killed [seconds]."""
ROLES = {
    "dvc": "tasks.dvc_process",
    "stage": "amopo_core.stages.",
    "launcher": "accelerate.commands.launch",
    "rank": "amopo_core.training.rank",
}
"""A word of the command line of each process, by what it is; a launcher's holds the rank's too."""


class Command:
    """A process whose standard error is read while it works."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.began = time.monotonic()
        self.lines: list[tuple[float, str]] = []
        """Seconds since the start, and what was said then."""
        self.out = ""
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_err, self._read_out)]
        for reader in self._readers:
            reader.start()

    @property
    def said(self) -> str:
        """All of standard error so far."""
        return "\n".join(line for _, line in self.lines)

    def wait_for(self, word: str) -> bool:
        """Whether a line with the word came; False where the command ended without."""
        while True:
            ended = self.process.poll() is not None
            if any(word in line for _, line in list(self.lines)):
                return True
            if ended or time.monotonic() - self.began > LIMIT:
                return False
            time.sleep(0.01)

    def end(self) -> int:
        """The exit status, once it has ended; a command that hangs is killed, with all that came of it."""
        try:
            status = self.process.wait(timeout=max(LIMIT - (time.monotonic() - self.began), 1))
        except subprocess.TimeoutExpired:
            for process in self.family():
                with suppress(psutil.NoSuchProcess):
                    self.lines.append((LIMIT, f"killed after {LIMIT:g} s: {' '.join(process.cmdline())}"))
                    process.kill()
            status = self.process.wait()
        for reader in self._readers:
            reader.join(timeout=10)  # one who has survived may hold the pipe
        return status

    def family(self) -> list[psutil.Process]:
        """The command's process and everything that came of it."""
        try:
            own = psutil.Process(self.process.pid)
            return [own, *own.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def of_role(self, role: str) -> list[psutil.Process]:
        """The processes of the command that are a `dvc`, a `stage`, a `launcher` or a `rank`."""
        return [process for process in self.family()[1:] if role_of(process) == role]

    def send(self, process: psutil.Process, number: signal.Signals) -> bool:
        """Whether the process was there to get the signal."""
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            return False
        return True

    def _read_err(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append((time.monotonic() - self.began, line.rstrip()))

    def _read_out(self) -> None:
        assert self.process.stdout is not None
        self.out = self.process.stdout.read()


def role_of(process: psutil.Process) -> str | None:
    """What the process is, by its command line; a shell that runs a stage is none."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return None
    if len(words) > 1 and words[1] == "-c":
        return None
    return next(
        (role for role in ("dvc", "launcher", "rank", "stage") if any(ROLES[role] in word for word in words)), None
    )
