"""One variant measured in one process: seconds of its steps, and its peak memory.

Run as: python -m bench.training.measure [--in-turn] TASK [TASK …], each a task as JSON; prints a line of JSON a task.
Several tasks share the process, one after the other. With --in-turn each timed step, and the end, is asked for by a
line and waits for one on stdin.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.utils import logging as transformers_logging

from bench.training.measured import IN_TURN, MY_TURN, PRODUCTS, Measured
from bench.training.products import product_seconds
from bench.training.task import Task

MODULES = {"published": "published", "trl": "simpo", "ours": "ours"}
MEGABYTE = 1e6


def at_once() -> None:
    """Nobody else is at work."""


def when_told() -> None:
    """Wait until whoever started this process lets it go on."""
    print(MY_TURN, flush=True)
    if not sys.stdin.readline():
        sys.exit("whoever gives the turns is gone")


class Steps(TrainerCallback):
    """Times every step, and looks at the memory from the first timed one on."""

    def __init__(self, task: Task, my_turn: Callable[[], None]) -> None:
        self.task = task
        self.seconds: list[float] = []
        """Of every step, the first one included."""
        self._my_turn = my_turn
        self._began = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """The first step is about to begin."""
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """A step is over, its gradients still there."""
        if not self.task.is_cpu:
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self._began)
        if len(self.seconds) == 1:
            forget_peak(self.task.device)
        self._my_turn()
        self._began = time.perf_counter()


def measure(task: Task, my_turn: Callable[[], None] = at_once) -> Measured:
    """Train for the task's steps. Each, and what comes after the last, begins when `my_turn` returns."""
    if task.is_cpu:
        torch.set_num_threads(task.threads)
    if task.variant == PRODUCTS:
        return Measured(product_seconds(task, my_turn))
    module = importlib.import_module(f"bench.training.{MODULES[task.variant]}")
    steps = Steps(task, my_turn)
    with TemporaryDirectory() as folder:
        trainer: Trainer = module.trainer(task, Path(folder))
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(steps)
        gc.collect()
        before = resident(task.device) - parameter_bytes(trainer.model)
        output = trainer.train()
    peak = peak_of(task.device)
    state = state_bytes(trainer)
    objective_seconds = getattr(getattr(trainer, "objective", None), "seconds", 0.0)
    found = Measured(
        seconds=steps.seconds[1:],
        peak_mb=(peak - before - state) / MEGABYTE,
        process_mb=peak / MEGABYTE,
        state_mb=state / MEGABYTE,
        objective_share=objective_seconds / sum(steps.seconds),
        parameters=sum(parameter.numel() for parameter in trainer.model.parameters()),
        loss=float(trainer.accelerator.reduce(torch.tensor(output.training_loss, device=task.device), "mean")),
    )
    torch.use_deterministic_algorithms(False)  # the engine's default on a CPU, and nobody else's
    return found


def parameter_bytes(model: torch.nn.Module) -> int:
    """Of the policy's weights."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def state_bytes(trainer: Trainer) -> int:
    """Parameters, gradients of those that are trained, and what the optimiser keeps of them."""
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    gradients = sum(parameter.numel() * parameter.element_size() for parameter in trained)
    kept = [value for state in trainer.optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    return parameter_bytes(trainer.model) + gradients + sum(value.numel() * value.element_size() for value in kept)


def resident(device: str) -> int:
    """Memory that the process holds now [bytes]."""
    return torch.cuda.memory_allocated() if device != "cpu" else status_bytes("VmRSS")


def peak_of(device: str) -> int:
    """The most that the process held since `forget_peak` [bytes]."""
    return torch.cuda.max_memory_allocated() if device != "cpu" else status_bytes("VmHWM")


def forget_peak(device: str) -> None:
    """Let the peak start from what is held now."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def status_bytes(name: str) -> int:
    """A line of /proc/self/status [bytes]."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def main(arguments: Sequence[str]) -> None:
    """Measure each task and print what was found."""
    transformers_logging.set_verbosity_error()
    my_turn = when_told if IN_TURN in arguments else at_once
    for text in arguments:
        if text == IN_TURN:
            continue
        try:
            found = measure(Task.of(json.loads(text)), my_turn)
        except torch.OutOfMemoryError:
            found = Measured([], out_of_memory=True)
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(asdict(found)), flush=True)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
