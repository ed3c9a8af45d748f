"""Runs of `amopo retrain` that are killed, each followed by the same command until it ends: what is lost, what differs.

Example: python -m bench.soak --kills 30 --seed 0

Real Prefect, DVC, MLflow and training processes on a small policy, in temporary clones. Every part of a run is hit at a
random moment: `kill -9` of the flow, of dvc, of the stage, of the launcher, of one of two ranks, of all at once, and
SIGTERM of the flow. After each kill no process may be left, no row of feedback be lost or doubled, and the champion be
as before; the next `amopo retrain` has to go on from the last checkpoint, and to come to the bytes of the undisturbed
run: lock file, policy, history, reports. Then two commands start at the same instant, ten times: one works, the other
is sent away. Exit status 1 where anything fails; what failed stays in its folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from mlflow import MlflowClient
from rich.console import Console
from rich.table import Table

from amopo_core.atomic import write_json
from amopo_core.params_file import override
from bench.survival.state import result_of
from bench.survival.trial import MARKS, WAYS, Trial, Undisturbed, moved, planned, retrain, tried, undisturbed
from tests.flow.conftest import Workspace, clone, write_ratings

RESULTS = Path("bench/results/soak.json")
BEFORE = ["train.learning_rate=0.000001"]
DUE = ["train.learning_rate=0.01", "playground.pretraining_steps=5"]
"""With new feedback, what makes every stage due; the champion before has learnt next to nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the kills, print the tally, write the numbers."""
    args = parse(argv)
    console = Console(stderr=True, width=150, highlight=False)
    began = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="soak-"))
    kills = planned(args.kills, args.seed)
    console.print(f"preparing a workspace in {root}")
    template = prepared(root / "template")
    calm = {
        ranks: undisturbed(template, root / f"calm-{ranks}", ranks) for ranks in sorted({1} | {k.ranks for k in kills})
    }
    console.print(f"undisturbed: {sum(calm[1].seconds.values()):.0f} s")
    trials: list[Trial] = []

    def run(number: int) -> None:
        kill = kills[number]
        trials.append(tried(number, kill, template, root / f"kill-{number}", calm[kill.ranks]))
        console.print(f"{len(trials)}/{len(kills)}  {trials[-1].told}")

    with ThreadPoolExecutor(args.jobs) as jobs:
        list(jobs.map(run, range(len(kills))))
    starts = [started_twice(moved(template, root / "calm-1"), calm[1]) for _ in range(args.starts)]
    summary = {
        "seed": args.seed,
        "survived": sum(not trial.failures for trial in trials),
        "kills": len(trials),
        "went_on_from_a_checkpoint": sum(trial.went_on is not None for trial in trials),
        "two_starts_at_once": {"as_asked": sum(not said for said in starts), "times": len(starts)},
        "seconds": round(time.monotonic() - began),
        "trials": [asdict(trial) for trial in sorted(trials, key=lambda trial: trial.number)],
    }
    write_json(args.out, summary)
    if args.as_json:
        print(json.dumps(summary, indent=2))
    else:
        Console(width=120).print(tally(trials))
        print(
            f"survived: {summary['survived']} of {len(trials)}; {summary['went_on_from_a_checkpoint']} had a checkpoint"
        )
        print(
            f"two starts at once, one works and one is sent away: {sum(not said for said in starts)} of {len(starts)}"
        )
        print(f"numbers: {args.out}")
    failed = [trial for trial in trials if trial.failures] + [said for said in starts if said]
    for said in filter(None, starts):
        console.print(said)
    if not failed:
        shutil.rmtree(root)
    return 1 if failed else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="(default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--starts", type=int, default=10, help="pairs of commands started at once (default: 10)")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="kills at a time (default: 2)")
    parser.add_argument("--json", dest="as_json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the numbers go (default: %(default)s)")
    return parser.parse_args(argv)


def prepared(folder: Path) -> Workspace:
    """A workspace with a weak champion, in which new feedback and other parameters make every stage due."""
    workspace = clone(folder / "workspace")
    workspace.env["DVC_SITE_CACHE_DIR"] = str(folder / "dvc")
    write_ratings(workspace.path / "data/inbox/ratings/ratings.jsonl")
    override(workspace.path / "params.yaml", BEFORE)
    first = workspace.amopo("demo", "--json")
    if first.code:
        sys.exit(f"the first run failed\n{first.err}")
    MlflowClient(workspace.store).set_registered_model_alias("amopo", "champion", "1")
    write_ratings(folder / "more" / "more.jsonl")
    lines = (folder / "more" / "more.jsonl").read_text(encoding="utf-8").replace("Question ", "Request ")
    (workspace.path / "data/inbox/ratings").mkdir(parents=True, exist_ok=True)
    (workspace.path / "data/inbox/ratings/more.jsonl").write_text(lines, encoding="utf-8")
    override(workspace.path / "params.yaml", DUE)
    return workspace


def started_twice(workspace: Workspace, calm: Undisturbed) -> str:
    """What went wrong when two commands started at the same instant with nothing due; empty where nothing did."""
    two = [retrain(workspace, 1), retrain(workspace, 1)]
    by_status = {command.end(): command for command in two}
    if sorted(by_status) != [0, 1]:
        return f"two starts ended with {[command.process.returncode for command in two]}"
    if "another run is at work in this folder" not in by_status[1].said:
        return f"the second start said: {by_status[1].said[-300:]}"
    if result_of(workspace) != calm.expected:
        return "two starts changed what was there"
    return ""


def tally(trials: Sequence[Trial]) -> Table:
    """How many kills were survived, by the part of the run and by who was killed."""
    table = Table(title="kills survived: part of the run, who was killed")
    ways = [way for way in WAYS if any(trial.kill.way == way for trial in trials)]
    for column in ("", *(WAYS[way].removeprefix("kill -9 of ") for way in ways)):
        table.add_column(column)
    for phase in MARKS:
        cells = []
        for way in ways:
            found = [trial for trial in trials if (trial.kill.phase, trial.kill.way) == (phase, way)]
            cells.append(f"{sum(not trial.failures for trial in found)} of {len(found)}" if found else "")
        table.add_row(phase, *cells)
    return table


if __name__ == "__main__":
    sys.exit(main())
