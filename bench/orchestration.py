"""What Prefect, DVC, MLflow, record and registration add to the bare stages; whether recorded runs can be made again.

Example: python -m bench.orchestration --rounds 3 --reproduce 20

In temporary clones, one after the other in each round: the stages' own commands, `dvc repro`, and `amopo demo`, on the
same feedback with the project's parameters (--small: the tests'). Then `dvc repro` with nothing to do, and, with
--reproduce N, N runs with different parameters and data on the small policy, each made again by `amopo reproduce`.
Asked: at most 30 s on top of the stages, `dvc repro` of an unchanged pipeline under 3 s, all runs the same bytes.
Exit status 1 where one of these does not hold.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from amopo_core.atomic import write_json
from tests.flow.conftest import ROOT, Workspace, clone, write_ratings

RESULTS = Path("bench/results/orchestration.json")
WAYS = {"stages": "the stages' commands", "dvc": "dvc repro", "amopo": "amopo demo"}
ADDED, UNCHANGED = 30.0, 3.0
"""What is asked: seconds on top of the stages, and of an unchanged pipeline."""
CHANGES = (
    "objective.beta=1.5", "objective.weighting=mean", "train.learning_rate=0.02", "objective.temperature=0.5",
    "train.epochs=3",
    "train.batch_pairs=16", "views.instruction_at=end", "pairs.selection=best_worst", "train.publish=best",
    "objective.weighting=uniform", "ratings.combine=median", "playground.pretraining_steps=6", "train.weight_decay=0.1",
    "train.micro_batch_tokens=900", "objective.target_margin=1.0", "views.generic=false", "train.warmup_fraction=0.3",
    "evaluation.max_new_tokens=6", "objective.supervised_weight=0.5", "pairs.validation_share=0.1",
)  # fmt: skip
"""Each run of --reproduce changes one more, and the seed; every second one also has more feedback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for, print the table, write the numbers."""
    args = parse(argv)
    console, found = Console(stderr=True, highlight=False), {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        if args.rounds:
            found = timed(folder, args.rounds, console, small=args.small)
        if args.reproduce:
            found |= reproduced(folder / "reproduced", args.reproduce, console)
    write_json(args.out, found)
    if args.as_json:
        print(json.dumps(found, indent=2))
    else:
        Console().print(table(found))
        print(f"numbers: {args.out}")
    return 0 if all(holds for _, _, _, holds in judged(found)) else 1


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of the three ways (default: 3)")
    parser.add_argument("--small", action="store_true", help="the tests' parameters: a training of seconds")
    parser.add_argument("--reproduce", type=int, default=0, metavar="N", help="runs to make again (default: 0)")
    parser.add_argument("--json", dest="as_json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the numbers go (default: %(default)s)")
    return parser.parse_args(argv)


def timed(folder: Path, rounds: int, console: Console, *, small: bool) -> dict[str, object]:
    """Seconds of each way in each round, and of `dvc repro` afterwards."""
    first = project(folder / "first", small=small)
    require(first.amopo("demo", "--json"), "the first run")  # brings the feedback; warms the disk up
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    cpu: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS:
            workspace = project(folder / f"{way}-{number}", small=small)
            if way != "amopo":
                shutil.copytree(first.path / "data/feedback", workspace.path / "data/feedback")
                shutil.copytree(first.path / "models/champion", workspace.path / "models/champion")
            began, worked = time.monotonic(), cpu_seconds()
            RUN[way](workspace)
            seconds[way].append(time.monotonic() - began)
            cpu[way].append(cpu_seconds() - worked)
            console.print(f"round {number + 1}, {WAYS[way]}: {seconds[way][-1]:.1f} s, {cpu[way][-1]:.1f} s of CPU")
            if not (way == "amopo" and number == rounds - 1):
                shutil.rmtree(workspace.path.parent)
    unchanged = []
    for _ in range(max(rounds, 3)):
        began = time.monotonic()
        done = workspace.dvc("repro")
        unchanged.append(time.monotonic() - began)
        assert "Running stage" not in done.stdout, done.stdout
    return {"seconds": seconds, "cpu_seconds": cpu, "unchanged": unchanged}


def cpu_seconds() -> float:
    """What all processes that this one started have worked so far: says more than the clock on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def project(folder: Path, *, small: bool) -> Workspace:
    """A clone with the project's own parameters, or the tests'."""
    workspace = clone(folder / "workspace")
    if small:
        write_ratings(workspace.path / "data/inbox/ratings/ratings.jsonl")
    else:
        shutil.copy(ROOT / "params.yaml", workspace.path)
        workspace.git("commit", "--quiet", "--all", "--message", "The project's parameters")
    return workspace


def by_stages(workspace: Workspace) -> None:
    """Run the commands of dvc.yaml one after the other, as a shell would."""
    stages = YAML(typ="safe").load(workspace.path / "dvc.yaml")["stages"]
    path = f"{Path(sys.executable).parent}:{workspace.env['PATH']}"
    for name, stage in stages.items():
        command = ["sh", "-c", stage["cmd"]]
        env = workspace.env | {"PATH": path}
        done = subprocess.run(command, cwd=workspace.path, env=env, capture_output=True, check=False)
        if done.returncode:
            sys.exit(f"stage {name} failed\n{done.stderr.decode()}")


def by_dvc(workspace: Workspace) -> None:
    """Run `dvc repro`."""
    workspace.env["PATH"] = f"{Path(sys.executable).parent}:{workspace.env['PATH']}"
    done = workspace.dvc("repro")
    if done.returncode:
        sys.exit(f"dvc repro failed\n{done.stderr}")


def by_amopo(workspace: Workspace) -> None:
    """Run `amopo demo`."""
    require(workspace.amopo("demo", "--json"), "amopo demo")


RUN: dict[str, Callable[[Workspace], None]] = {"stages": by_stages, "dvc": by_dvc, "amopo": by_amopo}


def reproduced(folder: Path, runs: int, console: Console) -> dict[str, object]:
    """How many of the runs came to the same bytes when they were made again."""
    workspace = clone(folder / "workspace")
    write_ratings(workspace.path / "data/inbox/ratings/ratings.jsonl")
    require(workspace.amopo("demo", "--json"), "the first run")
    inbox = workspace.path / "data/inbox/ratings"
    write_ratings(folder / "more/more.jsonl")
    more = (folder / "more/more.jsonl").read_text(encoding="utf-8")
    same: list[dict[str, object]] = []
    for number in range(runs):
        changes = [CHANGES[number % len(CHANGES)], f"runtime.seed={number}"]
        if number % 2:
            (inbox / f"{number}.jsonl").write_text(more.replace("Question ", f"Question {number}-"), encoding="utf-8")
        retrained = workspace.amopo("retrain", "--json", *(word for change in changes for word in ("--set", change)))
        require(retrained, f"the run with {changes[0]}")
        made = workspace.amopo("reproduce", "--last", "--json")
        same.append({"version": retrained.json["version"], "change": changes[0], "same": made.code == 0})
        console.print(f"{number + 1}/{runs}  {changes[0]}: {'the same bytes' if made.code == 0 else made.err[-600:]}")
    return {"reproduced": same}


def require(done: object, what: str) -> None:
    """End where a command has failed."""
    if done.code:  # type: ignore[attr-defined]
        sys.exit(f"{what} failed\n{done.err}")  # type: ignore[attr-defined]


def judged(found: dict[str, object]) -> list[tuple[str, str, str, bool]]:
    """What was measured, the number, what is asked, and whether it holds."""
    lines = []
    seconds = found.get("seconds")
    if isinstance(seconds, dict):
        means = {way: median(seconds[way]) for way in WAYS}
        work = {way: median(found["cpu_seconds"][way]) for way in WAYS}  # type: ignore[index]
        lines += [(WAYS[way], f"{means[way]:.1f} s, {work[way]:.1f} s of CPU", "", True) for way in WAYS]
        added = [full - bare for full, bare in zip(seconds["amopo"], seconds["stages"], strict=True)]
        holds = median(added) <= ADDED
        lines.append(("added to the stages", f"{median(added):.1f} s", f"at most {ADDED:.0f} s", holds))
        lines.append(("amopo demo / the stages", f"{means['amopo'] / means['stages']:.2f}", "", True))
    unchanged = found.get("unchanged")
    if isinstance(unchanged, list):
        holds = median(unchanged) < UNCHANGED
        lines.append(("dvc repro, unchanged", f"{median(unchanged):.2f} s", f"under {UNCHANGED:.0f} s", holds))
    made = found.get("reproduced")
    if isinstance(made, list):
        count = sum(each["same"] for each in made)
        lines.append(("runs made again, same bytes", f"{count} of {len(made)}", "all", count == len(made)))
    return lines


def table(found: dict[str, object]) -> Table:
    """The same for people."""
    shown = Table(title="what the pipeline adds")
    for column in ("", "median", "asked", ""):
        shown.add_column(column)
    for what, number, asked, holds in judged(found):
        shown.add_row(what, number, asked, "" if not asked else "holds" if holds else "[bold]does not hold[/bold]")
    return shown


if __name__ == "__main__":
    sys.exit(main())
