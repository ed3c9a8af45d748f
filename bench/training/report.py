"""What the bench says at its end: tables, the ratios that matter, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
from rich.table import Table

from amopo_core.pictures.style import FAINT, colour, picture
from bench.training.measured import PRODUCTS
from bench.training.rounds import Result
from bench.training.task import INSTRUCTION, VIEWS, Shape

LEFT = ("policy", "precision", "process", "variant", "ranks", "what")


def steps_table(found: Sequence[Result]) -> Table:
    """Every variant on every policy, beside ours; the processes of their own first."""
    columns = ("policy", "precision", "process", "variant", "s/step", "pairs/s", "ours faster", "peak MB")
    table = _table("training step (medians); memory beyond parameters, gradients and optimiser state", columns)
    table.add_column("ours of it", justify="right")
    for result in sorted(found, key=lambda result: not result.own_process):
        if result.task.variant == PRODUCTS:
            continue
        ours = counterpart(found, result, "ours")
        compared = ours if ours is not result else None
        table.add_row(
            result.task.shape.name,
            result.task.precision,
            "own" if result.own_process else "shared",
            result.task.variant,
            f"{result.seconds:.2f}",
            f"{result.pairs_per_second:.3f}",
            f"{result.seconds / compared.seconds:.2f} x" if compared else "",
            f"{result.peak_mb:,.0f}" if result.own_process else "",
            f"{compared.peak_mb / result.peak_mb:.1%}" if compared and result.own_process else "",
        )
    return table


def head_table(found: Sequence[Result]) -> Table:
    """What a larger vocabulary adds to our step, beside what it adds to the necessary products; medians over turns."""
    columns = ("what", "precision", "s / step more", "products alone", "ratio")
    table = _table("what the larger vocabulary costs: the step, and its output layer's matrix products alone", columns)
    for small, large in vocabulary_steps(found):
        products = [counterpart(found, result, PRODUCTS) for result in (small, large)]
        if products[0] is None or products[1] is None:
            continue
        more = [
            [last - first for first, last in zip(*each, strict=True)]
            for each in ((small.every_step, large.every_step), (products[0].every_step, products[1].every_step))
        ]
        ratio = median(step / alone for step, alone in zip(*more, strict=True))
        step, alone = map(median, more)
        name = f"{small.task.shape.name} to {large.task.shape.vocabulary:,}"
        table.add_row(name, small.task.precision, f"{step:.3f}", f"{alone:.3f}", f"{ratio:.2f}")
    return table


def vocabulary_steps(found: Sequence[Result]) -> list[tuple[Result, Result]]:
    """Ours on each vocabulary with ours on the next larger one, in processes of their own."""
    ours = [result for result in found if result.task.variant == "ours" and result.own_process]
    ours.sort(key=lambda result: (result.task.precision, result.task.shape.vocabulary))
    return [(a, b) for a, b in pairwise(ours) if a.task.precision == b.task.precision]


def memory_table(found: Sequence[Result], tokens: Sequence[int]) -> Table:
    """Peak memory of ours by tokens of the micro-batch, beside a straight line."""
    line = fit(found, tokens)
    title = f"our peak memory by tokens of a micro-batch, {found[0].task.shape.name}: {line[0] * 1e3:.0f} kB a token"
    table = _table(title, ("tokens", "peak MB", "straight line", "off by"))
    for result, count in zip(found, tokens, strict=True):
        expected = line[0] * count + line[1]
        off = result.peak_mb / expected - 1
        table.add_row(f"{count:,}", f"{result.peak_mb:,.0f}", f"{expected:,.0f}", f"{off:+.1%}")
    return table


def stored_table(found: Sequence[Result]) -> Table:
    """Peak memory of ours by size of the data set, the whole process."""
    table = _table("our process's peak memory by size of the data set", ("pairs", "peak MB", "against the first"))
    for result in found:
        table.add_row(
            f"{result.task.stored:,}", f"{result.process_mb:,.0f}", f"{result.process_mb / found[0].process_mb:.2f} x"
        )
    return table


def fit(found: Sequence[Result], tokens: Sequence[int]) -> tuple[float, float]:
    """Slope [MB per token] and offset [MB] of the peak memory."""
    slope, offset = np.polyfit(tokens, [result.peak_mb for result in found], 1)
    return float(slope), float(offset)


def ranks_table(found: Sequence[Result]) -> Table:
    """Ours in one rank and in two, the same global batch."""
    columns = ("ranks", "s / step", "pairs / s", "against the first")
    table = _table(f"ranks on {found[0].task.shape.name}, the same pairs a step", columns)
    for result in found:
        ranks, threads = result.task.ranks, result.task.threads
        name = f"{ranks} rank{'s' * (ranks > 1)} of {threads} thread{'s' * (threads > 1)}"
        faster = found[0].seconds / result.seconds
        table.add_row(name, f"{result.seconds:.2f}", f"{result.pairs_per_second:.3f}", f"{faster:.2f} x")
    return table


def setting(shape: Shape, pairs: int, threads: int) -> str:
    """What was measured, in a sentence or two."""
    return (
        f"Qwen2 policy of random weights: hidden {shape.hidden}, {shape.layers} blocks, {shape.heads} heads"
        f" ({shape.key_heads} for keys), intermediate {shape.intermediate}, tied embeddings; {pairs} pairs an optimizer"
        f" step, {VIEWS} views each with an instruction of {INSTRUCTION} tokens, {threads} threads."
    )


def objective_line(found: Sequence[Result]) -> str:
    """How much of a step the objective takes."""
    shares = [result.objective_share for result in found if result.task.variant == "ours" and result.own_process]
    return f"statistics, weights and loss: {max(shares, default=0.0):.2%} of our step at most"


def draw(found: Sequence[Result], path: Path) -> None:
    """Pairs per second and peak memory of every variant, by policy and precision."""
    own = [result for result in found if result.own_process and result.task.variant != PRODUCTS]
    groups = list(dict.fromkeys((result.task.shape.name, result.task.precision) for result in own))
    variants = list(dict.fromkeys(result.task.variant for result in own))
    labels = [f"{name}\n{precision}" for name, precision in groups]
    with picture(path, width=max(7.0, 1.7 * len(groups)), height=6.2, rows=2) as (speed, memory):
        for place, variant in enumerate(variants):
            of_variant = [result for result in own if result.task.variant == variant]
            of_group = {(result.task.shape.name, result.task.precision): result for result in of_variant}
            there = [number for number, group in enumerate(groups) if group in of_group]
            at = np.array(there) + (place - (len(variants) - 1) / 2) * 0.8 / len(variants)
            results = [of_group[groups[number]] for number in there]
            options = {"width": 0.8 / len(variants), "color": colour(place), "label": variant}
            speed.bar(at, [result.pairs_per_second for result in results], **options)
            memory.bar(at, [result.peak_mb / 1e3 for result in results], **options)
        for axes, title in ((speed, "pairs per second"), (memory, "peak memory beyond weights and optimiser [GB]")):
            axes.set(title=title, yscale="log")
            axes.set_xticks(range(len(groups)), labels)
            axes.grid(axis="x", visible=False)
            axes.tick_params(axis="x", color=FAINT)
        speed.legend(ncols=len(variants), loc="lower right", bbox_to_anchor=(1, 1))


def counterpart(found: Sequence[Result], result: Result, variant: str) -> Result | None:
    """Another variant's result on the same policy, in the same kind of process."""
    wanted = (result.task.shape, result.task.precision, result.own_process, variant)
    for other in found:
        if (other.task.shape, other.task.precision, other.own_process, other.task.variant) == wanted:
            return other
    return None


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title)
    for name in columns:
        table.add_column(name, justify="left" if name in LEFT else "right")
    return table
