"""Stage `train`: fit the policy on the pairs, on as many ranks as the launch file says.

Example: python -m amopo_core.stages.train --pairs data/pairs --base models/base --policy models/policy \\
    --report reports/train

AMOPO_LAUNCH names the accelerate launch file (default configs/accelerate/cpu.yaml). Checkpoints lie in
.amopo/checkpoints under the digest of what decides the result, so that the same command goes on after a crash. The last
one stays until the flow has recorded the run or another run is done; remove it to train the same once more.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from amopo_core.launch import launch_file, ranks_of
from amopo_core.params_file import read_params
from amopo_core.run_folder import DROPPED, FAILURE, POLICY, SUMMARY, mark_published, run_folder
from amopo_core.stages.command import (
    EXIT_FAILED,
    MESSAGE,
    die_with_parent,
    exit_with,
    parse_paths,
)

GRACE_SECONDS = 30


def main(argv: Sequence[str] | None = None) -> None:
    """Launch the ranks, wait, and move what they made to where it belongs."""
    args = parse_paths(__doc__, ["pairs", "base", "policy", "report"], argv)
    params = read_params()
    launch = launch_file()
    ranks = ranks_of(launch)
    run = run_folder(params, [args.pairs, args.base], ranks)
    for folder in (run, args.report):
        folder.mkdir(parents=True, exist_ok=True)
    history = args.report / "history.jsonl"
    inputs = ["--pairs", args.pairs, "--base", args.base, "--run", run, "--history", history, "--ranks", ranks]
    run_ranks(launch, params.runtime.threads, [str(value) for value in inputs], run)
    publish(run, args.policy, args.report)


def run_ranks(launch: Path, threads: int, inputs: Sequence[str], run: Path) -> None:
    """Run the ranks through accelerate; end as they do."""
    failure = run / FAILURE
    failure.unlink(missing_ok=True)
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--config_file", str(launch)]
    command = [*launcher, "--num_cpu_threads_per_process", str(threads), "-m", "amopo_core.training", *inputs]
    child = subprocess.Popen(command, preexec_fn=_as_rank)  # noqa: PLW1509 (one thread here)
    try:
        status = child.wait()
    finally:
        _stop(child)
    if failure.exists():
        said = json.loads(failure.read_text(encoding="utf-8"))
        sys.stderr.write(f"{MESSAGE}{said['message']}\n")
        sys.exit(said["status"])
    if status:
        sys.exit(EXIT_FAILED)


def _as_rank() -> None:
    """Ctrl-C reaches this process alone, which then stops the ranks; they end with it also where it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()


def _stop(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()


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
