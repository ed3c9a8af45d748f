"""Stage `train`: fit the policy on the pairs, on as many ranks as the launch file says.

Example: python -m amopo_core.stages.train --pairs data/pairs --base models/base --policy models/policy \\
    --report reports/train

AMOPO_LAUNCH names the accelerate launch file (default configs/accelerate/cpu.yaml). Checkpoints lie in
.amopo/checkpoints under the digest of what decides the result, so that the same command goes on after a crash. The last
one stays until the flow has recorded the run or another run is done; remove it to train the same once more.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from amopo_core.config import Params
from amopo_core.errors import UserError
from amopo_core.params_file import read_params
from amopo_core.stages.command import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    MESSAGE,
    adopt_orphans,
    die_with_parent,
    exit_with,
    paths_parser,
)
from amopo_core.training.launch import RANK_ENVIRONMENT, launch_command, launch_file, machine_rank, read_launch
from amopo_core.training.memory import ended_without_a_word, oom_kills
from amopo_core.training.run_folder import (
    DROPPED,
    FAILURE,
    POLICY,
    RUNS,
    SUMMARY,
    input_digests,
    interrupted_runs,
    is_run_folder,
    mark_published,
    open_run,
    run_folder,
    wait_until_free,
)

GRACE_SECONDS = 55
"""Time that the ranks have to save and end [seconds]."""
FAILED_SECONDS = 30
"""Time that the ranks have to end once one of them has failed [seconds]."""
EXIT_STOPPED = 128 + signal.SIGTERM


def main(argv: Sequence[str] | None = None) -> None:
    """Launch the ranks, wait, and move what they made to where it belongs."""
    parser = paths_parser(__doc__, ["pairs", "base", "policy", "report"])
    parser.add_argument("--resume", type=Path, metavar="FOLDER", help="go on with exactly this run's folder, or refuse")
    args = parser.parse_args(argv)
    params = read_params()
    launch = read_launch(launch_file())
    machine = machine_rank(launch.path)
    digests = input_digests(params, [args.pairs, args.base], launch)
    run = args.resume or run_folder(digests)
    if args.resume and not is_run_folder(run):
        raise UserError(f"--resume: {run} is no run's folder; expected one such as those in {RUNS}")
    open_run(run, digests, first=machine == 0)
    if launch.machines == 1:  # another machine's ranks may have begun
        wait_until_free(run)
    for line in interrupted_runs(run, digests):
        sys.stderr.write(f"train: {line}\n")
    args.report.mkdir(parents=True, exist_ok=True)
    history = args.report / "history.jsonl"
    inputs = ["--pairs", args.pairs, "--base", args.base, "--run", run, "--history", history, "--ranks", launch.ranks]
    run_ranks(launch.path, params, [str(value) for value in inputs], run)
    if machine == 0:
        publish(run, args.policy, args.report)


def run_ranks(launch: Path, params: Params, inputs: Sequence[str], run: Path) -> None:
    """Run the ranks through accelerate; end as they do."""
    failure = run / FAILURE
    if machine_rank(launch) == 0:
        failure.unlink(missing_ok=True)
    signal.signal(signal.SIGTERM, _terminated)
    command = launch_command(launch, params.runtime.threads, ["amopo_core.training.rank_process", *inputs])
    environment = RANK_ENVIRONMENT | os.environ
    kills = oom_kills()
    adopt_orphans()
    # A process group of its own: what a terminal or a scheduler sends to this one's reaches the ranks through here.
    child = subprocess.Popen(command, preexec_fn=die_with_parent, process_group=0, env=environment)  # noqa: PLW1509
    stopped = EXIT_STOPPED
    try:
        status = _wait(child, failure)
    except Terminated:
        status = EXIT_STOPPED
    except KeyboardInterrupt:
        status = stopped = EXIT_INTERRUPTED
        sys.stderr.write("train: interrupted; the step under way is ended and saved\n")
    finally:
        _stop(child)
    if failure.exists():
        left = _left(failure)
        sys.stderr.write(f"{MESSAGE}{left['message']}\n")
        sys.exit(stopped if left["status"] == EXIT_STOPPED else left["status"])
    if status in (stopped, EXIT_STOPPED, -signal.SIGTERM):
        sys.stderr.write(f"{MESSAGE}stopped; the same command goes on from the last checkpoint\n")
        sys.exit(stopped)
    if status:
        said = ended_without_a_word(status, params.train, killed=oom_kills() > kills)
        sys.stderr.write(f"{MESSAGE}{said}\n")
        sys.exit(EXIT_FAILED)


def _left(failure: Path) -> dict[str, Any]:
    """What a rank left: its message, and the exit status that it asks for."""
    text = failure.read_text(encoding="utf-8")
    try:
        return dict(json.loads(text))
    except ValueError:  # not even the words found room
        return {"message": "the disk is full; free some space and start again", "status": EXIT_FAILED}


def _wait(child: subprocess.Popen[bytes], failure: Path) -> int:
    """The launcher's exit status; ranks that wait for one that has failed are ended after a while."""
    while not failure.exists():
        with suppress(subprocess.TimeoutExpired):
            return child.wait(timeout=1)
    try:
        return child.wait(timeout=FAILED_SECONDS)
    except subprocess.TimeoutExpired:
        _stop(child, grace=0)
        return EXIT_FAILED


class Terminated(BaseException):
    """SIGTERM reached the stage."""


def _terminated(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def _stop(child: subprocess.Popen[bytes], grace: float = GRACE_SECONDS) -> None:
    """Ask the ranks to end and wait for them: a launcher may end before its ranks have saved, and leave them behind."""
    family = psutil.Process().children(recursive=True)
    ranks = [process for process in family if process.pid != child.pid]
    for process in ranks or family:  # a launcher ends with its ranks
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    until = time.monotonic() + grace
    _, left = psutil.wait_procs(ranks, timeout=grace)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    try:
        child.wait(timeout=max(until - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def publish(run: Path, policy: Path, report: Path) -> None:
    """Draw the pictures, then put the policy and the reports in their places."""
    draw(report)
    shutil.rmtree(policy, ignore_errors=True)
    policy.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(run / POLICY, policy)
    for name in (SUMMARY, DROPPED):
        shutil.move(run / name, report / name)
    mark_published(run)


def draw(report: Path) -> None:
    """The pictures of the run's history."""
    from amopo_core.pictures.training import draw_training

    lines = (report / "history.jsonl").read_text(encoding="utf-8").splitlines()
    draw_training([json.loads(line) for line in lines], report)


if __name__ == "__main__":
    exit_with(main)
