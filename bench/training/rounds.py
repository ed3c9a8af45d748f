"""Variants taken in turn, A B C A B C: each in a process of its own, or all in one that lives long.

Where small differences matter the processes live side by side, and the turns are single steps: so what slows the
machine down for minutes slows all alike.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from signal import SIGKILL
from statistics import median
from tempfile import TemporaryFile
from typing import Any

from amopo_core.training.launch import RANK_ENVIRONMENT
from bench.training.measured import IN_TURN, MY_TURN, Measured
from bench.training.task import Task

ROOT = Path(__file__).resolve().parents[2]
MEASURE = "bench.training.measure"
TWO_RANKS = ("-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu-two-ranks.yaml")


@dataclass(frozen=True)
class Result:
    """A variant on a task, over all rounds."""

    task: Task
    own_process: bool
    rounds: list[Measured]

    @property
    def seconds(self) -> float:
        """Median over all timed steps of all rounds; without end where the memory does not suffice."""
        return median(self.every_step or [math.inf])

    @property
    def every_step(self) -> list[float]:
        """Seconds of each, round after round."""
        return [seconds for found in self.rounds for seconds in found.seconds]

    @property
    def pairs_per_second(self) -> float:
        """Of the median step."""
        return self.task.pairs_per_step / self.seconds

    @property
    def peak_mb(self) -> float:
        """Median over the rounds, beyond parameters, gradients and optimiser state."""
        return median(found.peak_mb for found in self.rounds)

    @property
    def process_mb(self) -> float:
        """Median over the rounds of the whole process's peak."""
        return median(found.process_mb for found in self.rounds)

    @property
    def objective_share(self) -> float:
        """Share of the steps that statistics, weights and loss took; 0 where it was not measured."""
        return median(found.objective_share for found in self.rounds)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "task": self.task.as_dict(),
            "own_process": self.own_process,
            "seconds_per_step": self.seconds if math.isfinite(self.seconds) else None,
            "pairs_per_second": self.pairs_per_second,
            "peak_mb": self.peak_mb if self.own_process else None,
            "rounds": [asdict(found) for found in self.rounds],
        }


def in_own_processes(tasks: Sequence[Task], rounds: int) -> list[Result]:
    """Every task once a round, in a fresh process each time; every round has other pairs."""
    found: list[list[Measured]] = [[] for _ in tasks]
    for number in range(rounds):
        for place, task in enumerate(tasks):
            (measured,) = run([replace(task, seed=number)])
            found[place].append(measured)
            say(task, measured, f"round {number + 1} of {rounds}", f", {measured.peak_mb:,.0f} MB")
    return [Result(task, True, measured) for task, measured in zip(tasks, found, strict=True)]


def in_one_process(tasks: Sequence[Task], rounds: int) -> list[Result]:
    """The same in one process for all; what one takes of its memory is not known."""
    turns = [replace(task, seed=number) for number in range(rounds) for task in tasks]
    measured = []
    for task, one in zip(turns, run(turns), strict=True):
        measured.append(one)
        say(task, one, f"round {task.seed + 1} of {rounds}, in one process")
    return [Result(task, False, measured[place :: len(tasks)]) for place, task in enumerate(tasks)]


def in_turns(tasks: Sequence[Task]) -> list[Result]:
    """Every task in a process of its own, all at the same time, of which one is at work: a turn is a step.

    All tasks have as many steps.
    """
    with ExitStack() as stack:
        processes = []
        for task in tasks:
            process = stack.enter_context(_process([task], ["-m", MEASURE, IN_TURN, json.dumps(task.as_dict())]))
            processes.append(process)
            _said(process, MY_TURN)
        turns = tasks[0].steps
        for number in range(turns):
            seconds = []
            for process in processes:
                started = time.perf_counter()
                _let_go(process)
                _said(process, MY_TURN)
                seconds.append(f"{time.perf_counter() - started:.2f}")
            print(f"{time.strftime('%H:%M:%S')} turn {number + 1} of {turns}: {', '.join(seconds)} s", flush=True)
        found = []
        for process in processes:
            _let_go(process)
            found.append(Measured(**json.loads(_said(process, "{"))))
    for task, measured in zip(tasks, found, strict=True):
        say(task, measured, "in turns", f", {measured.peak_mb:,.0f} MB")
    return [Result(task, True, [measured]) for task, measured in zip(tasks, found, strict=True)]


def run(tasks: Sequence[Task]) -> Iterator[Measured]:
    """Measure the tasks in one new process, or in two ranks, and give each as it ends.

    Where the process fails, this one ends and shows what it said.
    """
    launcher = TWO_RANKS if tasks[0].ranks > 1 else ()
    arguments = [json.dumps(task.as_dict()) for task in tasks]
    with _process(tasks, [*launcher, "-m", MEASURE, *arguments]) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                yield Measured(**json.loads(line))


@contextmanager
def _process(tasks: Sequence[Task], arguments: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that measures the tasks; where it fails, this one ends and shows what it said."""
    environment = os.environ | {"OMP_NUM_THREADS": str(tasks[0].threads), "PYTHONPATH": _path()}
    if all(task.variant == "ours" for task in tasks):
        environment |= RANK_ENVIRONMENT  # as the stage `train` starts it; the others as their users do
    with (
        TemporaryFile("w+") as said,
        subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE if IN_TURN in arguments else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as process,
    ):
        try:
            yield process
        except ChildProcessError:
            if process.poll() in (None, 0):
                process.kill()
                raise
        except BaseException:
            process.kill()
            raise
        if process.wait() == -SIGKILL:
            sys.exit(
                f"{tasks[0].variant} was killed, most likely for its memory; try fewer --pairs or a smaller"
                " --vocabulary"
            )
        if process.returncode:
            said.seek(0)
            sys.exit(f"{tasks[0].variant} ended with {process.returncode}\n{said.read()[-3000:]}")


def _let_go(process: subprocess.Popen[str]) -> None:
    """Let a process that takes turns go on; whether it still can, shows in what it says."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        os.write(process.stdin.fileno(), b"\n")


def _said(process: subprocess.Popen[str], beginning: str) -> str:
    """The next line that begins so; ChildProcessError where none comes, once the process is gone."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(beginning):
            return line
    process.wait()
    raise ChildProcessError(f"a measuring process ended before it said {beginning!r}")


def say(task: Task, measured: Measured, where: str, memory: str = "") -> None:
    """A line of progress."""
    seconds = ", ".join(f"{value:.2f}" for value in measured.seconds) or "out of memory,"
    print(
        f"{time.strftime('%H:%M:%S')} {task.shape.name}, {task.precision}, {where}: {task.variant} {seconds} s a step"
        f"{memory}",
        flush=True,
    )


def _path() -> str:
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
