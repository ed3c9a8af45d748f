"""One variant measured in one process: seconds of its steps, and its peak memory.

Run as: python -m bench.training.measure TASK [TASK …], each a task as JSON; prints a line of JSON a task. Several tasks
share the process, one after the other.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.utils import logging as transformers_logging

from bench.training.measured import PRODUCTS, Measured
from bench.training.products import product_seconds
from bench.training.task import Task

MODULES = {"published": "published", "trl": "simpo", "ours": "ours"}
MEGABYTE = 1e6


class Steps(TrainerCallback):
    """Notes when steps end, and looks at the memory from the first timed one on."""

    def __init__(self, device: str) -> None:
        self.began = 0.0
        self.ends: list[float] = []
        self.device = device

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """The first step is about to begin."""
        self.began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """A step is over, its gradients still there."""
        if self.device != "cpu":
            torch.cuda.synchronize()
        if not self.ends:
            forget_peak(self.device)
        self.ends.append(time.perf_counter())


def measure(task: Task) -> Measured:
    """Train for the task's steps."""
    if task.is_cpu:
        torch.set_num_threads(task.threads)
    if task.variant == PRODUCTS:
        return Measured(product_seconds(task))
    module = importlib.import_module(f"bench.training.{MODULES[task.variant]}")
    steps = Steps(task.device)
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
    seconds = [stop - start for start, stop in zip(steps.ends, steps.ends[1:], strict=False)]
    found = Measured(
        seconds=seconds,
        peak_mb=(peak - before - state) / MEGABYTE,
        process_mb=peak / MEGABYTE,
        state_mb=state / MEGABYTE,
        objective_share=objective_seconds / (steps.ends[-1] - steps.began),
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


def main(tasks: Sequence[str]) -> None:
    """Measure each task and print what was found."""
    transformers_logging.set_verbosity_error()
    for text in tasks:
        try:
            found = measure(Task.of(json.loads(text)))
        except torch.OutOfMemoryError:
            found = Measured([], out_of_memory=True)
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(asdict(found)), flush=True)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
