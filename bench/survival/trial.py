"""One kill: at which moment of a run, of whom, what became of it, and what the next run came to."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from random import Random

from bench.resume import kill_all
from bench.survival.command import Command
from bench.survival.state import Result, differences, harm, result_of, unfinished_checkpoint
from tests.flow.conftest import Workspace

STAGES = ("normalize", "pairs", "quality", "base", "train", "evaluate", "evaluate-champion", "guardrails")
MARKS = {
    "start": "starting Prefect",
    **{stage: f"Running stage '{stage}'" for stage in STAGES},
    "record": "recording this state",
    "register": "registering the policy",
}
"""The line that each part of a run begins with, in their order."""
OUTSIDE_STAGES = ("flow", "SIGTERM", "all")
WAYS = {
    "flow": "kill -9 of the flow",
    "SIGTERM": "SIGTERM of the flow",
    "all": "kill -9 of everything at once",
    "dvc": "kill -9 of dvc",
    "stage": "kill -9 of the stage",
    "launcher": "kill -9 of the launcher",
    "rank": "kill -9 of a rank of two",
}
ATTEMPTS = 3
"""Runs after a kill until one ends well, at most."""


@dataclass(frozen=True)
class Kill:
    """Whom to kill, and when."""

    phase: str
    way: str
    share: float
    """Of the time that the part takes undisturbed, from 0 to 1."""

    @property
    def ranks(self) -> int:
        """How many ranks train."""
        return 2 if self.way == "rank" else 1


@dataclass
class Trial:
    """What became of a kill."""

    number: int
    kill: Kill
    after: float = 0.0
    """Seconds from the beginning of the part."""
    status: int = 0
    """Of the run that was killed, or whose part was."""
    went_on: str | None = None
    """The checkpoint that the next run went on from."""
    runs: int = 0
    """How many runs it took to come to the end."""
    failures: list[str] = field(default_factory=list)

    @property
    def told(self) -> str:
        """One line."""
        on = f", went on from {self.went_on}" if self.went_on else ""
        end = f"FAILED: {'; '.join(self.failures)}" if self.failures else "the same bytes"
        return f"{self.kill.phase}, {WAYS[self.kill.way]} after {self.after:.1f} s (exit {self.status}){on}: {end}"


@dataclass(frozen=True)
class Undisturbed:
    """A run that nobody disturbed, to which the others are held."""

    before: Result
    expected: Result
    seconds: Mapping[str, float]
    """Of each part."""


def planned(kills: int, seed: int) -> list[Kill]:
    """Kills in every part of a run, a quarter in the training; within each by every way in turn, at random moments."""
    random = Random(seed)
    ways: dict[str, Iterator[str]] = {}
    for phase in MARKS:
        possible = [*OUTSIDE_STAGES, *(["dvc", "stage"] if phase in STAGES else [])]
        possible += ["launcher", "rank"] if phase == "train" else []
        random.shuffle(possible)
        ways[phase] = cycle(possible)
    order = cycle((*MARKS, "train", "train", "train"))
    return [Kill(phase := next(order), next(ways[phase]), random.random()) for _ in range(kills)]


def copy_of(template: Workspace, folder: Path) -> Workspace:
    """The workspace with its Prefect home, in another folder."""
    shutil.copytree(template.path.parent, folder, symlinks=True)
    return moved(template, folder)


def moved(template: Workspace, folder: Path) -> Workspace:
    """The workspace that lies in another folder now."""
    path = folder / template.path.name
    env = {name: value.replace(str(template.path.parent), str(folder)) for name, value in template.env.items()}
    return Workspace(path, env)


def retrain(workspace: Workspace, ranks: int) -> Command:
    """`amopo retrain`, at work."""
    launch = {1: "cpu", 2: "cpu-two-ranks"}[ranks]
    return Command(workspace.start("retrain", "--json", env={"AMOPO_LAUNCH": f"configs/accelerate/{launch}.yaml"}))


def undisturbed(template: Workspace, folder: Path, ranks: int) -> Undisturbed:
    """Run to the end, and note when each part began."""
    workspace = copy_of(template, folder)
    before = result_of(workspace)
    command = retrain(workspace, ranks)
    if command.end():
        raise RuntimeError(f"the undisturbed run failed\n{command.said}")
    began = {phase: _time_of(command, mark) for phase, mark in MARKS.items()}
    ends = [*list(began.values())[1:], time.monotonic() - command.began]
    seconds = {phase: end - start for (phase, start), end in zip(began.items(), ends, strict=True)}
    return Undisturbed(before, result_of(workspace), seconds)


def tried(number: int, kill: Kill, template: Workspace, folder: Path, calm: Undisturbed) -> Trial:
    """Kill, look at what was done, and run until the end; the folder is removed where all is well."""
    trial = Trial(number, kill)
    while True:
        workspace = copy_of(template, folder)
        command = retrain(workspace, kill.ranks)
        is_hit = _killed(command, kill, trial, calm)
        trial.status = command.end()
        if is_hit or kill.share < 0.01:
            break
        kill = trial.kill = replace(kill, share=kill.share / 2)  # it had ended before: the machine was faster
        shutil.rmtree(folder)
    if not is_hit:
        trial.failures.append("the run ended before the kill")
    trial.failures += harm(workspace, calm.before, calm.expected)
    _go_on(workspace, trial, calm)
    if not trial.failures:
        shutil.rmtree(folder)
    return trial


def _killed(command: Command, kill: Kill, trial: Trial, calm: Undisturbed) -> bool:
    """Whether somebody was there to be killed at the moment."""
    if not command.wait_for(MARKS[kill.phase]):
        return False
    start = time.monotonic()
    time.sleep(kill.share * calm.seconds[kill.phase])
    deadline = time.monotonic() + calm.seconds[kill.phase]
    while command.process.poll() is None:
        trial.after = time.monotonic() - start
        if kill.way == "all":
            kill_all(command.process)
            return True
        if kill.way in OUTSIDE_STAGES:
            command.process.send_signal(signal.SIGTERM if kill.way == "SIGTERM" else signal.SIGKILL)
            return True
        found = command.of_role(kill.way)
        if found:
            return command.send(found[-1], signal.SIGKILL)
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                command.process.kill()
            return False
        time.sleep(0.005)
    return False


def _go_on(workspace: Workspace, trial: Trial, calm: Undisturbed) -> None:
    """Run the same command until it ends well, and hold what it came to to the undisturbed run."""
    checkpoint = unfinished_checkpoint(workspace.path)
    while trial.runs < ATTEMPTS:
        trial.runs += 1
        command = retrain(workspace, trial.kill.ranks)
        status = command.end()
        if checkpoint and trial.runs == 1:
            trial.went_on = checkpoint if f"going on from {checkpoint}" in command.said else None
            if trial.went_on is None:
                trial.failures.append(f"did not go on from {checkpoint}")
        if status == 0:
            break
        last = command.said.strip().splitlines()[-1:]
        trial.failures.append(f"the next run ended with {status}: {' '.join(last)}")
    else:
        return
    trial.failures += differences(result_of(workspace), calm.expected)
    if workspace.processes():
        trial.failures.append("a process is left after the end")
    json.loads(command.out)


def _time_of(command: Command, mark: str) -> float:
    return next(when for when, line in command.lines if mark in line)
