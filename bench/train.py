"""The engine's training step beside the published one and TRL's SimPO: pairs per second, memory, scaling.

Examples:
    python -m bench.train
    python -m bench.train --vocabulary 32000 --rounds 3 --variants published,ours --parts steps
    python -m bench.train --quick

The policy is a Qwen2 of random weights, the pairs are random tokens: prompts of 60 to 700, responses of 50 to 500, 4
views. All variants train the same weights on the same pairs, the same number of them an optimizer step, each through
its own transformers.Trainer; a step's time is everything between the ends of two steps. Variants take turns, each in a
process of its own; then again in one process for all. Part head compares two small differences: its processes live side
by side and take single steps in turn, three for each of --rounds.

Parts: steps (the variants), head (what a larger vocabulary costs our step, beside its output layer's products), memory
(by tokens of a micro-batch, and by size of the data set), ranks (two gloo ranks of one thread against one rank).
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from amopo_core.atomic import write_json
from bench.training import report
from bench.training.measured import PRODUCTS
from bench.training.rounds import Result, in_one_process, in_own_processes, in_turns
from bench.training.task import Lengths, Shape, Task

RESULTS = Path("bench/results/train.json")
PARTS = ("steps", "head", "memory", "ranks")
VARIANTS = ("published", "trl", "ours")
PRECISIONS = ("float32", "bfloat16")
PAIR_TOKENS = 1000
"""Tokens of a pair where memory is measured by tokens: 4 prompts of 80, 8 times 85 of the responses' 86."""
PAIR_LENGTHS = Lengths((60, 60), (86, 86))
PAIR_COUNTS = (1, 2, 4, 8)
HEAD_STEPS = 3
"""Turns of a step each that part `head` takes for each of the rounds asked for."""
STORED = (1_000, 50_000)
"""Pairs of a data set on disk."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts, print the tables, write the numbers and the picture."""
    args = parse(argv)
    console, numbers = Console(width=120), {"machine": machine()}
    print(report.setting(shape(args, args.vocabulary[0]), args.pairs, args.threads), flush=True)
    for part in args.parts:
        numbers |= {"steps": steps, "head": head, "memory": memory, "ranks": ranks}[part](args, console)
        write_json(args.out, numbers)
    print(f"numbers: {args.out}")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--parts", type=listed(PARTS), default=list(PARTS), help="of them: " + ", ".join(PARTS))
    add("--vocabulary", type=sizes, default=[151_936, 32_000, 2_048], help="sizes, separated by commas")
    add("--precision", type=listed(PRECISIONS), default=supported(), help="of weights and products, in their order")
    add("--variants", type=listed(VARIANTS), default=list(VARIANTS), help="in their order")
    add("--rounds", type=int, default=5, help="turns of every variant (default: %(default)s)")
    add("--steps", type=int, default=1, help="timed steps a turn, after one of short pairs (default: %(default)s)")
    add("--pairs", type=int, default=2, help="pairs in an optimizer step (default: %(default)s)")
    add("--threads", type=int, default=os.cpu_count(), help="CPU threads (default: all, %(default)s)")
    add("--layers", type=int, default=4, help="blocks of the policy (default: %(default)s)")
    add("--tokens", type=int, default=4096, help="our micro-batch (default: %(default)s)")
    add("--rows", type=int, default=4, help="trl's micro-batch; a pair is 4 rows (default: %(default)s)")
    add("--no-long-lived", dest="long_lived", action="store_false", help="leave out the one process for all")
    add("--quick", action="store_true", help="tiny sizes: whether it runs, nothing about speed")
    add("--out", type=Path, default=RESULTS, help="where the numbers go, the picture beside (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.quick:
        args.vocabulary, args.precision, args.rounds = [256], ["float32"], 1
    return args


def listed(known: Sequence[str]) -> Any:
    """A reader of names separated by commas."""

    def names(text: str) -> list[str]:
        found = text.split(",")
        strange = [name for name in found if name not in known]
        if strange:
            raise argparse.ArgumentTypeError(f"{', '.join(strange)}: choose from {', '.join(known)}")
        return found

    return names


def sizes(text: str) -> list[int]:
    """Whole numbers separated by commas."""
    return [int(size) for size in text.split(",")]


def supported() -> list[str]:
    """The precisions in which this CPU has matrix products."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return list(PRECISIONS if "avx512_bf16" in flags or "amx_bf16" in flags else PRECISIONS[:1])


def steps(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The variants against each other."""
    found: list[Result] = []
    for precision in args.precision:
        tasks = [
            make_task(args, variant, vocabulary, precision)
            for vocabulary in args.vocabulary
            for variant in args.variants
        ]
        found += in_own_processes(tasks, args.rounds)
        if args.long_lived:
            found += in_one_process(tasks, args.rounds)
    console.print(report.steps_table(found))
    print(report.objective_line(found))
    report.draw(found, args.out.with_suffix(".png"))
    print(f"picture: {args.out.with_suffix('.png')}")
    return {"steps": [result.as_dict() for result in found]}


def head(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    """What a larger vocabulary costs our step, beside what it costs the products alone."""
    found: list[Result] = []
    for precision in args.precision:
        sizes_there = args.vocabulary[:2]
        tasks = [
            replace(make_task(args, kind, size, precision), steps=HEAD_STEPS * args.rounds)
            for size in sizes_there
            for kind in ("ours", PRODUCTS)
        ]
        found += in_one_process(tasks, 1) if args.quick else in_turns(tasks)
    console.print(report.head_table(found))
    return {"head": [result.as_dict() for result in found]}


def memory(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Our peak memory by tokens of a micro-batch, and by size of the data set."""
    task = make_task(args, "ours", args.vocabulary[min(1, len(args.vocabulary) - 1)], "float32")
    tasks = [
        replace(task, pairs_per_step=count, micro_batch=count * PAIR_TOKENS, lengths=PAIR_LENGTHS)
        for count in (PAIR_COUNTS[:2] if args.quick else PAIR_COUNTS)
    ]
    found = apart(args, tasks, min(args.rounds, 3))
    console.print(report.memory_table(found, [task.micro_batch for task in tasks]))
    counts = STORED[:1] if args.quick else STORED
    stored = apart(args, [replace(tasks[0], stored=count) for count in counts], 1)
    console.print(report.stored_table(stored))
    return {"memory": [result.as_dict() for result in found], "stored": [result.as_dict() for result in stored]}


def ranks(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Ours in one rank of one thread, one of two, and two of one."""
    task = make_task(args, "ours", args.vocabulary[min(1, len(args.vocabulary) - 1)], "float32")
    task = replace(task, pairs_per_step=2 * args.pairs)
    found = in_own_processes(
        [replace(task, threads=threads, ranks=count) for count, threads in ((1, 1), (1, 2), (2, 1))], args.rounds
    )
    console.print(report.ranks_table(found))
    return {"ranks": [result.as_dict() for result in found]}


def apart(args: argparse.Namespace, tasks: Sequence[Task], rounds: int) -> list[Result]:
    """Each in a process of its own; where nothing is asked about speed or memory, in one."""
    return (in_one_process if args.quick else in_own_processes)(tasks, rounds)


def shape(args: argparse.Namespace, vocabulary: int) -> Shape:
    """The policy of a vocabulary."""
    name = f"vocabulary {vocabulary:,}"
    if args.quick:
        return Shape(name, vocabulary, hidden=32, layers=1, heads=2, key_heads=1, intermediate=64)
    return Shape(name, vocabulary, layers=args.layers)


def make_task(args: argparse.Namespace, variant: str, vocabulary: int, precision: str) -> Task:
    """One variant's task."""
    return Task(
        variant=variant,
        shape=shape(args, vocabulary),
        precision=precision,
        pairs_per_step=args.pairs,
        steps=args.steps,
        micro_batch={"published": 1, "trl": args.rows}.get(variant, args.tokens),
        lengths=Lengths((6, 20), (4, 12)) if args.quick else Lengths(),
        threads=args.threads,
    )


def machine() -> dict[str, Any]:
    """What it ran on."""
    return {"system": platform.platform(), "cores": os.cpu_count(), "torch": torch.__version__}


if __name__ == "__main__":
    sys.exit(main())
