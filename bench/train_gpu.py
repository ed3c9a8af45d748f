"""The engine's training step on a GPU beside the published one and TRL's SimPO, in bfloat16, on shapes of Qwen2.5.

Examples:
    python -m bench.train_gpu
    python -m bench.train_gpu --shapes 0.5B,7B --variants ours --rounds 3
    python -m bench.train_gpu --device cpu --quick

Pairs per second, peak memory, the share of the GPU's peak that the necessary operations took (bench/training/gpu.py
says what counts), and the longest context that fits. Weights are random, nothing is downloaded. Variants take turns,
each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from amopo_core.atomic import write_json
from bench.train import VARIANTS, listed
from bench.training.gpu import PEAKS, SHAPES, TINY, utilisation
from bench.training.rounds import ROOT, Result, in_own_processes
from bench.training.task import Lengths, Shape, Task

RESULTS = Path("bench/results/train-gpu.json")
MICRO_BATCH = {"published": 1, "trl": 4, "ours": 16_384}
"""Pairs, rows and tokens of a micro-batch."""
EXIT_NO_GPU = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run every variant on every shape, print the table, write the numbers."""
    args = parse(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        hint = "python -m bench.train_gpu --device cpu --quick shows that the command works; make bench-train measures"
        print(f"bench-gpu: no GPU is here, so there is nothing to measure. On a CPU: {hint} CPUs", file=sys.stderr)
        return EXIT_NO_GPU
    device = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    peak = args.peak or next((peak for name, peak in PEAKS.items() if name in device), None)
    found: list[Result] = []
    contexts: dict[tuple[str, str], int] = {}
    for shape in [TINY] if args.quick else [SHAPES[name] for name in args.shapes]:
        tasks = [make_task(args, variant, shape) for variant in args.variants]
        found += in_own_processes(tasks, args.rounds)
        contexts |= {(task.variant, shape.name): longest_context(args, task) for task in tasks}
    rows = [row_of(result, peak, contexts) for result in found]
    write_json(args.out, {"device": device, "peak_tflops": peak, "rows": rows, "steps": [r.as_dict() for r in found]})
    Console(width=120).print(as_table(rows, device))
    print(f"numbers: {args.out}")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: with --quick only (default: %(default)s)")
    add("--shapes", type=listed(tuple(SHAPES)), default=list(SHAPES), help="of them: " + ", ".join(SHAPES))
    add("--variants", type=listed(VARIANTS), default=list(VARIANTS), help="in their order")
    add("--rounds", type=int, default=5, help="turns of every variant (default: %(default)s)")
    add("--steps", type=int, default=2, help="timed steps a turn, after one of short pairs (default: %(default)s)")
    add("--pairs", type=int, default=8, help="pairs in an optimizer step (default: %(default)s)")
    add("--tokens", type=int, default=MICRO_BATCH["ours"], help="our micro-batch (default: %(default)s)")
    add("--peak", type=float, help="the GPU's bfloat16 peak [TFLOP/s]; known: " + ", ".join(PEAKS))
    add("--most", type=int, default=65_536, help="no longer context is tried [tokens] (default: %(default)s)")
    add("--quick", action="store_true", help="tiny sizes: whether it runs, nothing about speed")
    add("--out", type=Path, default=RESULTS, help="where the numbers go (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.device == "cpu" and not args.quick:
        parser.error("--device cpu runs a tiny shape only: add --quick, or measure CPUs with make bench-train")
    if args.quick:
        args.rounds, args.pairs, args.steps, args.most = 1, 2, 1, 96
    return args


def make_task(args: argparse.Namespace, variant: str, shape: Shape) -> Task:
    """One variant's task."""
    return Task(
        variant=variant,
        shape=shape,
        precision="bfloat16",
        pairs_per_step=args.pairs,
        steps=args.steps,
        micro_batch=args.tokens if variant == "ours" else MICRO_BATCH[variant],
        lengths=Lengths((6, 20), (4, 12)) if args.quick else Lengths(),
        device=args.device,
    )


def longest_context(args: argparse.Namespace, task: Task) -> int:
    """The longest context that fits, found in a process of its own [tokens]."""
    start = 64 if args.quick else 1024
    command = [sys.executable, "-m", "bench.training.gpu", json.dumps(task.as_dict()), str(start), str(args.most)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if process.returncode:
        sys.exit(f"{task.variant}: the longest context was not found\n{process.stderr[-3000:]}")
    context = int(json.loads(process.stdout.splitlines()[-1])["context"])
    print(f"{task.shape.name}: {task.variant} fits {context:,} tokens", flush=True)
    return context


def row_of(result: Result, peak: float | None, contexts: dict[tuple[str, str], int]) -> dict[str, Any]:
    """A line of the table."""
    return {
        "shape": result.task.shape.name,
        "variant": result.task.variant,
        "pairs_per_second": result.pairs_per_second,
        "peak_gb": (result.peak_mb + result.rounds[0].state_mb) / 1e3,
        "utilisation": utilisation(result.task, result.seconds, peak) if peak else None,
        "longest_context": contexts[result.task.variant, result.task.shape.name],
    }


def as_table(rows: Sequence[dict[str, Any]], device: str) -> Table:
    """Every variant on every shape."""
    table = Table(title=f"training step in bfloat16 on {device} (medians); necessary operations / peak")
    for name in ("shape", "variant", "pairs / s", "peak GB", "utilisation", "longest context"):
        table.add_column(name, justify="left" if name in ("shape", "variant") else "right")
    for row in rows:
        table.add_row(
            row["shape"],
            row["variant"],
            f"{row['pairs_per_second']:.2f}",
            f"{row['peak_gb']:.2f}",
            f"{row['utilisation']:.1%}" if row["utilisation"] is not None else "",
            f"{row['longest_context']:,}",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
