"""Services that are real processes: started, started again, stopped; a killed supervisor leaves none."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tasks import supervisor as module
from tasks.errors import OutsideError
from tasks.service import Service
from tasks.supervisor import Supervisor

READY = "import os, sys, time; print('ready as', os.getpid(), flush=True); "
LASTING = READY + "time.sleep(600)"
SUPERVISE = f"""
import sys
from pathlib import Path
from tasks.service import Service
from tasks.supervisor import Supervisor

with Supervisor(print, Path("logs")) as supervisor:
    supervisor.start(Service("Lasting", [sys.executable, "-c", {LASTING!r}], ready_line="ready", shown=True))
    print("all ready", flush=True)
    supervisor.watch()
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def service(script: str, name: str = "Lasting", **others: object) -> Service:
    return Service(name, [sys.executable, "-c", script], ready_line="ready", shown=True, **others)  # type: ignore[arg-type]


def pids(said: list[str]) -> list[int]:
    return [int(line.split()[-1]) for line in said if line.startswith("ready as")]


def test_all_are_ready_and_end_in_the_reverse_order() -> None:
    said: list[str] = []
    with Supervisor(said.append, Path("logs")) as supervisor:
        supervisor.start(service(LASTING, "First"), service(LASTING, "Second"))
        assert all(map(psutil.pid_exists, pids(said)))
        assert {"First is ready", "Second is ready"} < set(said)

    assert len(pids(said)) == 2
    assert not any(map(psutil.pid_exists, pids(said)))
    assert said[-2:] == ["stopping Second ...", "stopping First ..."]
    assert f"ready as {pids(said)[0]}" in "".join(file.read_text() for file in Path("logs").iterdir())


def test_one_that_is_never_ready_stops_all_and_says_its_last_lines() -> None:
    said: list[str] = []
    script = "import sys; print('no room for', 'hunter2'); sys.exit(3)"
    with (
        pytest.raises(OutsideError) as error,
        Supervisor(said.append, Path("logs")) as supervisor,
    ):
        supervisor.start(service(LASTING), service(script, "Sick", secrets=["hunter2"]))

    assert str(error.value) == "Sick ended with status 3 before it was ready; it said last:\nno room for ***"
    assert not psutil.pid_exists(pids(said)[0])
    assert "hunter2" not in Path("logs/sick.log").read_text()


def test_one_that_does_not_become_ready_in_time_stops_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START_LIMIT", 0.5)
    with (
        pytest.raises(OutsideError, match=r"Slow was not ready within 0\.5 s and said nothing"),
        Supervisor(lambda line: None, Path("logs")) as supervisor,
    ):
        supervisor.start(service("import time; time.sleep(600)", "Slow"))


def test_one_that_dies_is_started_again_until_it_has_died_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTARTS", 2)
    said: list[str] = []
    dying = READY + "time.sleep(0.3); print('it hurts'); sys.exit(7)"
    with (
        pytest.raises(OutsideError, match="it hurts\nDying died 3 times within 10 minutes: everything stops"),
        Supervisor(said.append, Path("logs")) as supervisor,
    ):
        supervisor.start(service(LASTING), service(dying, "Dying"))
        supervisor.watch()

    text = "\n".join(said)
    assert "Dying ended with status 7; it said last:" in text
    assert re.findall(r"starting Dying again \((\d) of 2\)", text) == ["1", "2"]
    assert text.count("Dying is ready") == 3
    assert len(pids(said)) == 4
    assert not any(map(psutil.pid_exists, pids(said)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_supervisor_that_is_ended_leaves_nobody_behind(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", SUPERVISE], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = []
        while "all ready\n" not in said:
            said.append(process.stdout.readline())
        process.send_signal(number)
        process.wait()

    [pid] = pids(said)
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.05)  # a kill reaches it by way of the kernel
