"""The playground over seeds: AMoPO against its base policy, beside three controls, judged on prompts never seen.

    amopo       the pairs as the raters made them; must be better in every dimension
    shuffled    scores permuted among the responses; must not pass the promotion gate
    reversed    scores turned around; must get worse
    supervised  the chosen responses alone, without preferences; for comparison

Example: python bench/playground.py --seeds 0,1,2,3,4 --jobs 2
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr
from dataclasses import asdict, replace
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import polars.selectors as cs
from rich.console import Console
from rich.table import Table

from amopo_core.atomic import write_json
from amopo_core.config import Params
from amopo_core.data.batches import append_batch, declared_batches
from amopo_core.data.decisions import Decisions
from amopo_core.data.normalize import normalize
from amopo_core.data.pairs import SplitCounts, is_conflicting, make_pairs
from amopo_core.data.reading import Row
from amopo_core.data.tables import RESPONSES, SCALE, SCORE, Pair, read_pairs, write_table
from amopo_core.evaluation.comparison import compare
from amopo_core.evaluation.guardrails import Guardrails
from amopo_core.evaluation.health import health
from amopo_core.evaluation.measurement import Measurement
from amopo_core.evaluation.measuring import measure_folder
from amopo_core.judges.playground import JUDGE
from amopo_core.params_file import read_params
from amopo_core.playground.feedback import feedback_rows
from amopo_core.promotion import Evidence, decide

RESULTS = Path("bench/results/playground.json")
SCORES = cs.starts_with(SCORE)

Relabel = Callable[[pl.DataFrame, int], pl.DataFrame]
"""Makes other scores of the table of responses, under a seed."""


def as_rated(responses: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The responses with the scores their raters gave."""
    return responses


def shuffled(responses: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The responses with each other's scores."""
    order = list(range(responses.height))
    Random(f"shuffled {seed}").shuffle(order)
    return responses.with_columns(responses.select(SCORES)[order])


def turned_around(responses: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The responses with every score turned around on the common scale."""
    return responses.with_columns(SCORES.as_expr() * -1 + sum(SCALE))


def on_chosen_alone(params: Params) -> Params:
    """The parameters with the supervised term alone: a preference counts for next to nothing."""
    objective = params.objective.model_copy(update={"beta": 1e-9, "target_margin": 0.0, "supervised_weight": 1.0})
    return params.model_copy(update={"objective": objective})


VARIANTS: Mapping[str, tuple[Relabel, Callable[[Params], Params]]] = {
    "amopo": (as_rated, lambda params: params),
    "shuffled": (shuffled, lambda params: params),
    "reversed": (turned_around, lambda params: params),
    "supervised": (as_rated, on_chosen_alone),
}
"""What each variant makes of the responses and of the parameters."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run every seed, print the table, write the numbers."""
    args = parse(argv)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        runs = [run for found in pool.map(run_seed, seeds) for run in found]
    write_json(args.out, runs)
    Console(width=120).print(results_table(runs))
    print(f"{summary(runs)}\nnumbers: {args.out}")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2,3,4", help="seeds, separated by commas (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time, one thread each (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the numbers go (default: %(default)s)")
    return parser.parse_args(argv)


def run_seed(seed: int) -> list[dict[str, Any]]:
    """Base policy and every variant of one seed, measured."""
    from amopo_core.base_policy import make_base_policy

    logging.basicConfig(level=logging.WARNING)
    params = seeded(read_params(), seed)
    with TemporaryDirectory() as name:
        folder, started = Path(name), time.monotonic()
        normalized = normalized_feedback(params, folder)
        make_base_policy(params, folder / "base")
        base, runs = measure_folder(folder / "base", [], JUDGE, params), []
        said(seed, "base", started)
        for variant, (relabel, adjust) in VARIANTS.items():
            started = time.monotonic()
            relabelled = relabelled_copy(normalized, folder / f"{variant}-scores", relabel, seed)
            counts = make_pairs(relabelled, params.dimensions, params.pairs, folder / variant)
            train(adjust(params), folder / variant, folder / "base")
            policy = folder / variant / "run" / "policy"
            candidate = measure_folder(policy, [], JUDGE, params)
            guarded = guardrails(policy, folder / "base", candidate, params)
            pairs = read_pairs(folder / variant / "train.parquet")
            runs.append(result(seed, variant, counts["train"], pairs, base, candidate, guarded, params))
            said(seed, variant, started)
    return runs


def seeded(params: Params, seed: int) -> Params:
    """The parameters under a seed, for one thread."""
    runtime = params.runtime.model_copy(update={"seed": seed, "threads": 1})
    return params.model_copy(
        update={"runtime": runtime, "playground": params.playground.model_copy(update={"seed": seed})}
    )


def normalized_feedback(params: Params, folder: Path) -> Path:
    """The tables of the playground's feedback, through the same door as everybody's."""
    rows = (Row(line, fields) for line, fields in enumerate(feedback_rows(params.playground), start=1))
    append_batch(folder / "feedback", "playground", rows)
    batches, out = declared_batches(folder / "feedback", ["playground"]), folder / "normalized"
    (folder / "quarantine").mkdir()
    normalize(
        batches, params, Decisions(), out=out, quarantine=folder / "quarantine", segments_folder=folder / "segments"
    )
    return out


def relabelled_copy(normalized: Path, copy: Path, relabel: Relabel, seed: int) -> Path:
    """A copy of the tables with other scores."""
    shutil.copytree(normalized, copy)
    write_table(copy / RESPONSES, relabel(pl.read_parquet(copy / RESPONSES), seed))
    return copy


def train(params: Params, folder: Path, base: Path) -> None:
    """Fit a policy to the pairs of a folder as the stage does, in one rank."""
    from amopo_core.training.rank import train_policy

    with redirect_stderr(StringIO()):  # the steps of two seeds at once are no progress that one can read
        train_policy(params, pairs=folder, base=base, run=folder / "run", history=folder / "history.jsonl", ranks=1)


def guardrails(policy: Path, base: Path, candidate: Measurement, params: Params) -> Guardrails:
    """How far a candidate moved from its base."""
    from amopo_core.evaluation.guarding import guard
    from amopo_core.evaluation.measuring import policy_to_measure

    policies = (policy_to_measure(folder, params) for folder in (policy, base))
    return guard(*policies, None, candidate.answers, {}, JUDGE, params).guardrails


def result(
    seed: int,
    variant: str,
    counts: SplitCounts,
    train_pairs: Sequence[Pair],
    base: Measurement,
    candidate: Measurement,
    guarded: Guardrails,
    params: Params,
) -> dict[str, Any]:
    """All that is reported of one run."""
    comparison = compare(base, candidate, params)
    evidence = Evidence(comparison, health(base.answers), health(candidate.answers), guarded)
    verdict = decide(evidence, params.promotion, list(params.dimensions))
    return {
        "seed": seed,
        "variant": variant,
        "prompts": comparison.prompts,
        "train_pairs": counts.pairs,
        "conflicting_share": {
            "raters": counts.conflicting_share,
            "truth": sum(is_conflicting(truly_scored(pair)) for pair in train_pairs) / counts.pairs,
        },
        "dimensions": {name: asdict(contrast) for name, contrast in comparison.dimensions.items() if contrast},
        "overall": asdict(comparison.overall) if comparison.overall else None,
        "promote": verdict.promote,
        "reasons": verdict.reasons,
        "health": {"base": asdict(evidence.incumbent), "candidate": asdict(evidence.candidate)},
        "kl": guarded.kl,
        "samples": [[answer.prompt[-1]["content"], answer.response] for answer in candidate.answers[:3]],
    }


def said(seed: int, what: str, started: float) -> None:
    """A line of progress."""
    sys.stderr.write(f"seed {seed}: {what} done in {time.monotonic() - started:.0f} s\n")


def truly_scored(pair: Pair) -> Pair:
    """The pair with the judge's scores in place of the raters'."""
    return replace(
        pair,
        chosen_scores=JUDGE.score(pair.prompt, pair.chosen),
        rejected_scores=JUDGE.score(pair.prompt, pair.rejected),
    )


def results_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    """A row a run: each dimension's base and candidate means, their difference with its interval, and the verdict."""
    dimensions = list(runs[0]["dimensions"])
    table = Table(title=f"judge's score (1 to 5) on {runs[0]['prompts']} held-out prompts; difference, 95 % interval")
    for column in ("seed", "variant", *dimensions, "gate", "ended", "tokens", "KL"):
        table.add_column(column)
    for run in runs:
        candidate = run["health"]["candidate"]
        table.add_row(
            str(run["seed"]),
            run["variant"],
            *(contrast_cell(run["dimensions"][name]) for name in dimensions),
            "promote" if run["promote"] else "keep",
            f"{candidate['ended']:.0%}",
            f"{candidate['tokens']:.1f}",
            f"{run['kl']['base']:.2f}",
            end_section=run["variant"] == list(VARIANTS)[-1],
        )
    return table


def contrast_cell(contrast: Mapping[str, Mapping[str, float]]) -> str:
    """`base -> candidate`, and below it `difference [low, high]`."""
    difference = contrast["difference"]
    return (
        f"{contrast['baseline']['mean']:.2f} -> {contrast['candidate']['mean']:.2f}"
        f"\n{difference['mean']:+.2f} [{difference['low']:+.2f}, {difference['high']:+.2f}]"
    )


def summary(runs: Sequence[Mapping[str, Any]]) -> str:
    """How many seeds met each expectation, and the share of conflicting pairs."""
    by_variant = {variant: [run for run in runs if run["variant"] == variant] for variant in VARIANTS}
    seeds = len(by_variant["amopo"])
    shares = [run["conflicting_share"] for run in by_variant["amopo"]]
    lowest = {kind: min(share[kind] for share in shares) for kind in ("raters", "truth")}
    return (
        f"base: every dimension's mean between 0.2 and 0.8 of the scale: {sum(map(middling, by_variant['amopo']))} of"
        f" {seeds}\n"
        f"amopo: better in every dimension, interval above zero: {sum(map(better, by_variant['amopo']))} of {seeds}\n"
        f"shuffled: held back by the gate: {sum(not run['promote'] for run in by_variant['shuffled'])} of {seeds}\n"
        f"reversed: worse overall, interval below zero: {sum(map(worse, by_variant['reversed']))} of {seeds}\n"
        f"training pairs with conflicting dimensions, lowest share of a seed: {lowest['raters']:.0%} by the raters,"
        f" {lowest['truth']:.0%} by the judge"
    )


def middling(run: Mapping[str, Any]) -> bool:
    """Whether the base policy is neither hopeless nor nearly perfect in any dimension."""
    low, high = SCALE
    shares = [(contrast["baseline"]["mean"] - low) / (high - low) for contrast in run["dimensions"].values()]
    return all(0.2 <= share <= 0.8 for share in shares)


def better(run: Mapping[str, Any]) -> bool:
    """Whether every dimension's interval lies above zero."""
    return all(contrast["difference"]["low"] > 0 for contrast in run["dimensions"].values())


def worse(run: Mapping[str, Any]) -> bool:
    """Whether the overall interval lies below zero."""
    return bool(run["overall"]["difference"]["high"] < 0)


if __name__ == "__main__":
    main()
