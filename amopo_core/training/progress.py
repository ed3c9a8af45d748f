"""How a run goes: where its time is spent, how fast it is, how much memory it takes."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from amopo_core.atomic import replacing, write_json
from amopo_core.engine.batches import Batch
from amopo_core.units import duration, in_bytes

LOGS = Path("logs/train")
"""No output of a stage: no two runs take the same time."""
SPEED, TIMES = "speed.jsonl", "summary.json"

PARTS = ("data", "forward", "backward", "optimiser", "search", "checkpoint", "validation")
"""`search`: for the pairs of a step that is not finite."""
ON_DEVICE = ("forward", "backward", "optimiser")
"""Parts that the device works on while the host is ahead of it."""


@dataclass(frozen=True)
class BatchSize:
    """How large a micro-batch is."""

    tokens: int
    """Tokens of its rows, padding included."""
    pairs: int
    longest: int
    """Tokens of its longest sequence."""

    @classmethod
    def of(cls, batch: Batch) -> BatchSize:
        """The size of a micro-batch that is still on the host."""
        rows = batch.rows
        return cls(rows.input_ids_XT.numel(), len(batch.pair_ids), int(rows.position_ids_XT.max()) + 1)


class StepClock:
    """Adds up the time that the parts of a run take [seconds], and what this rank computed.

    On CUDA the parts in ON_DEVICE are measured between events in the device's own queue, which are read where the loop
    waits for the device anyway; the host is never made to wait for a clock.
    """

    def __init__(self) -> None:
        self.tokens = 0
        """Tokens that this rank computed."""
        self.pairs = 0
        """Pairs of all ranks."""
        self.steps = 0
        self.began = time.monotonic()
        """When this start of the run began to train; earlier by what the starts before it took."""
        self.largest: BatchSize | None = None
        """The micro-batch of most tokens that this rank met."""
        self._seconds: dict[str, float] = defaultdict(float)
        self._starts: dict[str, float | torch.cuda.Event] = {}
        self._waiting: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    def count(self, batches: Sequence[Batch]) -> None:
        """Count a step's micro-batches, before they leave the host."""
        self.steps += 1
        self.pairs += batches[0].pairs_in_step
        for batch in batches:
            tokens = batch.rows.input_ids_XT.numel()
            self.tokens += tokens
            if self.largest is None or tokens > self.largest.tokens:
                self.largest = BatchSize.of(batch)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block's time as the named part's."""
        self.start(name)
        try:
            yield
        finally:
            self.stop(name)

    def start(self, name: str) -> None:
        """The named part begins."""
        self._starts[name] = _event() if _queued(name) else time.perf_counter()

    def stop(self, name: str) -> None:
        """The named part ends; nothing where it has not begun."""
        start = self._starts.pop(name, None)
        if isinstance(start, float):
            self._seconds[name] += time.perf_counter() - start
        elif start is not None:
            self._waiting.append((name, start, _event()))

    @property
    def elapsed(self) -> float:
        """The time of the whole so far [seconds]."""
        return time.monotonic() - self.began

    def state(self) -> dict[str, Any]:
        """What a resumed run goes on from, in JSON's types."""
        counts = {"tokens": self.tokens, "pairs": self.pairs, "steps": self.steps}
        return counts | {"seconds": self.seconds(), "elapsed": self.elapsed}

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        """Take up the counts of the starts before this one."""
        self.tokens, self.pairs, self.steps = (state[name] for name in ("tokens", "pairs", "steps"))
        self.began -= state["elapsed"]
        self._seconds.update(state["seconds"])

    def seconds(self) -> dict[str, float]:
        """The time of each part so far [seconds]; waits for the device."""
        for name, start, end in self._waiting:
            end.synchronize()
            self._seconds[name] += start.elapsed_time(end) / 1000
        self._waiting = []
        return {name: self._seconds[name] for name in PARTS if name in self._seconds}


class Progress(TrainerCallback):
    """Says on stderr how far the run is, and leaves speed.jsonl and summary.json in logs/train.

    Tokens are those of this rank times the ranks, which share out a step evenly: an estimate. Pairs are exact. A
    resumed run goes on in speed.jsonl, and its summary is that of all its starts, each as far as its last checkpoint.
    """

    def __init__(self, clock: StepClock, logs: Path = LOGS) -> None:
        self.clock = clock
        self.logs = logs
        self._began = self._said = 0.0
        self._first_step = 0
        self._tokens_said = self._pairs_said = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Keep what a resumed run had said by its checkpoint."""
        self._began = self._said = time.monotonic()
        self._first_step = state.global_step
        self._tokens_said, self._pairs_said = self.clock.tokens, self.clock.pairs
        if state.is_world_process_zero:
            rows = _rows_until(self.logs / SPEED, state.global_step)
            with replacing(self.logs / SPEED) as file:
                file.writelines(rows)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The optimiser is done with the step."""
        self.clock.stop("optimiser")

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Say how far the run is."""
        row = state.log_history[-1]
        if "loss" not in row:
            return
        self.clock.seconds()  # a log has waited for the device: what its events measured is read, and they are freed
        if not state.is_world_process_zero:
            return
        speed = self._speed(state, args.world_size)
        with (self.logs / SPEED).open("a", encoding="utf-8") as file:
            file.write(json.dumps(speed) + "\n")
        sys.stderr.write(progress_line(row, state.max_steps, speed))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Say where the time went; nothing where no step was left to do."""
        if state.global_step == self._first_step:
            return
        summary = time_summary(self.clock, self.clock.elapsed, args.world_size)
        if state.is_world_process_zero:
            write_json(self.logs / TIMES, summary)
            sys.stderr.write(summary_table(summary))

    def _speed(self, state: TrainerState, ranks: int) -> dict[str, float]:
        """A line of speed.jsonl, of the time since the line before."""
        now, clock = time.monotonic(), self.clock
        seconds = max(now - self._said, 1e-9)
        tokens, pairs = clock.tokens - self._tokens_said, clock.pairs - self._pairs_said
        seconds_per_step = (now - self._began) / max(state.global_step - self._first_step, 1)
        self._said, self._tokens_said, self._pairs_said = now, clock.tokens, clock.pairs
        return {
            "step": state.global_step,
            "tokens_per_second": round(tokens * ranks / seconds, 3),
            "pairs_per_second": round(pairs / seconds, 3),
            "seconds_left": round(seconds_per_step * (state.max_steps - state.global_step), 1),
            "memory_bytes": peak_memory(),
        }


def progress_line(row: Mapping[str, float], steps: int, speed: Mapping[str, float]) -> str:
    """What is said at a log: the newest line of the history and of speed.jsonl in words."""
    accuracies = [value for name, value in row.items() if name.startswith("rewards/accuracies/")]
    return (
        f"train: step {row['step']}/{steps}, loss {row['loss']:.4f},"
        f" reward accuracy {sum(accuracies) / max(len(accuracies), 1):.2f},"
        f" {speed['tokens_per_second']:,.0f} tokens/s, {speed['pairs_per_second']:,.1f} pairs/s,"
        f" {in_bytes(speed['memory_bytes'])}, {duration(speed['seconds_left'])} left\n"
    )


def time_summary(clock: StepClock, elapsed: float, ranks: int) -> dict[str, Any]:
    """Where the time went [seconds] and how fast the run was; `other` is what no part of the clock covers."""
    seconds = clock.seconds()
    seconds["other"] = max(elapsed - sum(seconds.values()), 0.0)
    return {
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "tokens": clock.tokens * ranks,
        "pairs": clock.pairs,
        "steps": clock.steps,
        "tokens_per_second": round(clock.tokens * ranks / elapsed, 3),
        "pairs_per_second": round(clock.pairs / elapsed, 3),
        "peak_memory_bytes": peak_memory(),
    }


def summary_table(summary: Mapping[str, Any]) -> str:
    """The summary as it is said: a line, then one for each part with its seconds and share."""
    seconds: dict[str, float] = summary["seconds"]
    elapsed = sum(seconds.values())
    lines = [
        f"{summary['steps']:,} steps in {duration(elapsed)}, {summary['tokens_per_second']:,.0f} tokens/s,"
        f" {summary['pairs_per_second']:,.1f} pairs/s, at most {in_bytes(summary['peak_memory_bytes'])}"
    ]
    lines += [f"  {name:<10} {value:>9,.1f} s {value / max(elapsed, 1e-9):>6.1%}" for name, value in seconds.items()]
    return "".join(f"train: {line}\n" for line in lines)


def peak_memory() -> int:
    """The most memory that this rank has held: on the GPU where it trains on one, else in all [bytes]."""
    if on_gpu():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def on_gpu() -> bool:
    """Whether this process has begun to use a GPU."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _queued(name: str) -> bool:
    return name in ON_DEVICE and on_gpu()


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _rows_until(path: Path, step: int) -> list[str]:
    """The lines of the steps up to one; a fresh run has none."""
    if not step or not path.exists():
        return []
    lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in lines if json.loads(line)["step"] <= step]
