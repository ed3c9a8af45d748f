"""Ranks that are really started, here on the CPU."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from amopo_core.doctor.examine import Site
from amopo_core.doctor.ranks import SELF_TEST, check, start
from amopo_core.training.launch import launch_command, read_launch

ROOT = Path(__file__).parents[3]
PORT = 23_517
NEVER_ENDS = """
import subprocess, sys, time
while True:
    subprocess.Popen(["cat", sys.argv[1]], start_new_session=True)
    time.sleep(0.005)
"""
"""A launcher that goes on starting ranks, each in a session of its own as torch's are; they wait for the file named."""


@pytest.fixture(autouse=True)
def _on_cpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("MACHINE_RANK", "NUM_MACHINES", "MASTER_ADDR", "MASTER_PORT", "SLURM_NODEID", "SLURM_NNODES"):
        monkeypatch.delenv(name, raising=False)


def site(path):
    return Site(params=None, launch=read_launch(path))


def launch_file(folder, **changes):
    keys = {"distributed_type": "MULTI_GPU", "use_cpu": "false", "num_machines": 1, "num_processes": 2} | changes
    path = folder / "launch.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))
    return path


def test_two_ranks_on_the_cpu_and_those_of_the_launch_file_add_up():
    found = list(check(site(ROOT / "configs/accelerate/cpu-two-ranks.yaml")))

    assert [finding.status for finding in found] == ["ok", "ok"]
    assert all("2 started, sums right, on cpu" in finding.said for finding in found)


def test_processes_that_train_without_knowing_of_each_other_are_counted(tmp_path):
    """accelerate takes this file for two processes and starts one, without a word."""
    *_, found = check(site(launch_file(tmp_path, distributed_type="MULTI_CPU", use_cpu="true")))

    assert found.status == "wrong"
    assert "1 of 2 processes ran here, training together as [1] of 2" in found.said


def test_a_launch_that_fails_says_with_what(tmp_path):
    *_, found = check(site(launch_file(tmp_path, num_processes=1, mixed_precision="none_such")))

    assert found.status == "wrong"
    assert "0 of 1 processes" in found.said
    assert "none_such" in found.said


def test_ranks_that_never_end_are_ended(tmp_path):
    nothing_comes = tmp_path / "nothing-comes"
    os.mkfifo(nothing_comes)
    started = start([sys.executable, "-c", NEVER_ENDS, str(nothing_comes)], timeout=1)

    assert "no end after 1 s" in started.failure
    assert not [each for each in psutil.process_iter(["cmdline"]) if str(nothing_comes) in (each.info["cmdline"] or [])]


def test_two_machines_meet(tmp_path, monkeypatch):
    """Two launchers on the loopback device, as on two machines; one rank each."""
    path = launch_file(tmp_path, num_machines=2)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(PORT))
    machines = []
    for number in ("0", "1"):
        monkeypatch.setenv("MACHINE_RANK", number)
        command = launch_command(path, 1, [SELF_TEST, str(tmp_path)])
        machines.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
    deadline = time.monotonic() + 90
    while any(machine.poll() is None for machine in machines) and time.monotonic() < deadline:
        time.sleep(0.1)
    for machine in machines:
        machine.kill()
    ranks = [(tmp_path / f"rank-{rank}.json").read_text() for rank in (0, 1)]

    assert [machine.wait() for machine in machines] == [0, 0]
    assert all('"ranks": 2, "sum": 3.0' in seen for seen in ranks)
