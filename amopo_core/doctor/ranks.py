"""The ranks that are really started, counted by starting them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import psutil

from amopo_core.doctor.finding import Finding, ok, wrong
from amopo_core.training.launch import launch_command

if TYPE_CHECKING:
    from amopo_core.doctor.examine import Site

SELF_TEST = "amopo_core.doctor.self_test"
TIMEOUT = 60.0
"""How long ranks may take to meet [seconds]."""
GONE_TIMEOUT = 5.0
"""How long a killed rank may take to be gone [seconds]."""
ON_CPU = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
ALONE = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"}
"""Variables that only a launcher may set: left over from another one, ranks would look for it."""
_TAIL = 200
"""Characters of a failed launch that are shown."""


@dataclass(frozen=True)
class Started:
    """What came of starting ranks."""

    seen: Sequence[Mapping[str, Any]]
    """What each rank of this machine left."""
    failure: str
    """Why it did not go well; empty where it did."""


def check(site: Site) -> Iterator[Finding]:
    """Two ranks on the CPU add up a number; then the launch file's own ranks do."""
    options = ["--standalone", "--nproc-per-node", "2", "--log-dir", os.devnull]
    two = [sys.executable, "-m", "torch.distributed.run", *options, "-m", SELF_TEST]
    yield _judged("two ranks on the CPU (gloo)", start(two, ON_CPU), here=2, ranks=2)
    if site.launch:
        started = start(launch_command(site.launch.path, 1, [SELF_TEST]))
        yield _judged(str(site.launch.path), started, here=site.launch.per_machine, ranks=site.launch.ranks)


def start(command: Sequence[str], environment: Mapping[str, str] | None = None, timeout: float = TIMEOUT) -> Started:
    """Run a launcher of the self-test, whose last argument is added here; no process of it is left."""
    mine = {name: value for name, value in os.environ.items() if name not in ALONE}
    with TemporaryDirectory(prefix="amopo-doctor-") as folder:
        output = Path(folder, "output")
        with output.open("wb") as file:
            child = subprocess.Popen(
                [*command, folder], env=mine | dict(environment or {}), stdout=file, stderr=subprocess.STDOUT
            )
        try:
            status = child.wait(timeout)
            failure = f"exit status {status}: {_last_error(output)}" if status else ""
        except subprocess.TimeoutExpired:
            failure = f"no end after {timeout:.0f} s: the processes do not find each other"
        finally:
            _end(child)
        seen = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(folder).glob("rank-*.json"))]
    return Started(seen, failure)


def _judged(what: str, started: Started, *, here: int, ranks: int) -> Finding:
    seen = started.seen
    together = sorted({rank["ranks"] for rank in seen})
    if len(seen) != here or together != [ranks]:
        counted = f"{len(seen)} of {here} processes ran here, training together as {together or 'none'} of {ranks}"
        said = f"{what}: {counted}{'; ' if started.failure else ''}{started.failure}"
        return wrong(said, "see docs/training.md, `Ranks`; several machines: run the doctor on all of them at once")
    if any(rank["sum"] != ranks * (ranks + 1) / 2 for rank in seen):
        sums = [rank["sum"] for rank in seen]
        return wrong(f"{what}: the ranks add up wrongly: {sums}", "mend the network or the driver")
    if started.failure:
        return wrong(f"{what}: the ranks met, but ended badly: {started.failure}", "")
    devices = ", ".join(sorted({rank["device"] for rank in seen}))
    return ok(f"{what}: {ranks} started, sums right, on {devices}")


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a launcher, and wait until it is gone; torch's gives each rank a session of its own."""
    ranks = []
    with suppress(psutil.NoSuchProcess):
        launcher = psutil.Process(child.pid)
        launcher.suspend()
        while launcher.status() not in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}:
            time.sleep(0.01)  # until then it may start another
        ranks = launcher.children(recursive=True)
    for process in ranks:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    child.kill()
    child.wait()
    psutil.wait_procs(ranks, timeout=GONE_TIMEOUT)


def _last_error(output: Path) -> str:
    """The last line that names an exception; else the end of what was said."""
    text = output.read_text(encoding="utf-8", errors="replace")
    errors = [line for line in text.splitlines() if "Error: " in line and not line.startswith("torch.distributed")]
    return (errors[-1].strip() if errors else text)[-_TAIL:]
