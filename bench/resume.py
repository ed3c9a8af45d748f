"""Runs that are killed and started again: whether they come to the same bytes as one that nobody disturbed.

Example: python -m bench.resume --times 20 --ranks 1,2

Real processes of the stage `train` on a small random Llama. Each run is ended at a random moment, in one of three ways,
and the same command is started again, which may be ended too: `kill -9` of every process, SIGTERM to the stage, and
`kill -9` that leaves the newest checkpoint torn (its mark gone, its weights cut in half). What comes out is compared
with the undisturbed run: SHA-256 of the policy's weights and of history.jsonl. Exit status 1 where anything differs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import psutil  # type: ignore[import-untyped]
from rich.console import Console
from rich.table import Table

from amopo_core.atomic import write_json

ROOT = Path(__file__).parents[1]
RESULTS = Path("bench/results/resume.json")
LAUNCH = {1: "cpu.yaml", 2: "cpu-two-ranks.yaml"}
"""Launch file by number of ranks."""
WAYS = ("kill -9", "SIGTERM", "torn")
COMPARED = ("policy/model.safetensors", "report/history.jsonl")
AGAIN = 1 / 3
"""Share of the resumed runs that are ended once more."""
SETTINGS = [
    "runtime.threads=1", "train.batch_pairs=24", "train.micro_batch_tokens=2000", "train.max_length=250",
    "train.epochs=4", "train.log_every=3", "train.checkpoint_every=5", "train.validate_every=4",
    "train.checkpoint_minutes=0.02", "train.learning_rate=0.003",
]  # fmt: skip
PAIRS = 144


@dataclass(frozen=True)
class Ended:
    """How a run was ended, and when."""

    way: str
    line: int
    """Progress lines that it had written; 0: still before the first."""
    status: int
    """Of the stage; 0: it was done before."""


@dataclass(frozen=True)
class Trial:
    """A run that was disturbed, until it came to its end."""

    ranks: int
    number: int
    ended: list[Ended]
    same: dict[str, bool]
    """Whether what came out has the bytes of the undisturbed run, by name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the trials, print the table, write the numbers."""
    args = parse(argv)
    console, trials = Console(width=120), []
    for ranks in args.ranks:
        with TemporaryDirectory() as name:
            folder = Path(name)
            make_workspace(folder)
            gaps = undisturbed(folder, ranks)
            expected = digests(folder)
            steps = f"{gaps[0]:.0f} s to the first line, {sum(gaps[1:]):.0f} s more"
            console.print(f"{ranks} ranks, undisturbed: {steps}, {expected[COMPARED[0]][:16]}")
            for number in range(args.times):
                trial = disturbed(folder, ranks, number, gaps, expected, Random(f"{args.seed} {ranks} {number}"))
                trials.append(trial)
                console.print(f"{ranks} ranks, {number}: {told(trial)}")
    write_json(args.out, {"seed": args.seed, "trials": [asdict(trial) for trial in trials]})
    console.print(results_table(trials))
    print(f"numbers: {args.out}")
    return 0 if all(all(trial.same.values()) for trial in trials) else 1


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="disturbed runs per number of ranks (default: 20)")
    parser.add_argument(
        "--ranks", type=rank_counts, default=[1, 2], help="numbers of ranks, separated by commas (default: 1,2)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the ways (default: 0)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the numbers go (default: %(default)s)")
    return parser.parse_args(argv)


def rank_counts(text: str) -> list[int]:
    """Numbers of ranks, each with a launch file."""
    if not set(text.split(",")) <= set(map(str, LAUNCH)):
        raise argparse.ArgumentTypeError(f"{text!r}; expected some of {', '.join(map(str, LAUNCH))}, such as 1,2")
    return [int(word) for word in text.split(",")]


def make_workspace(folder: Path) -> None:
    """A project with a small random base and pairs of unequal lengths: 24 steps."""
    from amopo_core.data.tables import Pair, write_pairs
    from amopo_core.params_file import override, read_params

    make_base(folder / "base")
    shutil.copytree(ROOT / "configs", folder / "configs")
    shutil.copy(ROOT / "params.yaml", folder)
    override(folder / "params.yaml", SETTINGS)
    dimensions = list(read_params(folder / "params.yaml").dimensions)
    scores = [dict.fromkeys(dimensions, score) for score in (5.0, 2.0)]
    random = Random(0)
    pairs = [
        Pair(
            f"{number:016x}",
            f"{number:016x}",
            [{"role": "user", "content": words(random, 60)}],
            words(random, 40),
            words(random, 30),
            *scores,
        )
        for number in range(PAIRS + 6)
    ]
    write_pairs(folder / "pairs" / "train.parquet", pairs[:PAIRS], dimensions)
    write_pairs(folder / "pairs" / "validation.parquet", pairs[PAIRS:], dimensions)


def words(random: Random, letters: int) -> str:
    """A random text of at most so many letters."""
    return "".join(random.choices("abcdefgh ", k=random.randint(letters // 4, letters)))


def make_base(folder: Path) -> None:
    """A random Llama of two blocks, hidden size 32, that reads bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(vocab={character: index for index, character in enumerate(alphabet)}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>", pad_token="<|pad|>")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def start(folder: Path, ranks: int) -> subprocess.Popen[str]:
    """The stage as a process; its lines can be read."""
    command = [sys.executable, "-m", "amopo_core.stages.train", "--pairs", "pairs", "--base", "base"]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [*command, "--policy", "policy", "--report", "report"],
        cwd=folder,
        env=os.environ | {"AMOPO_LAUNCH": f"configs/accelerate/{LAUNCH[ranks]}", "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def undisturbed(folder: Path, ranks: int) -> list[float]:
    """Seconds between a whole run's progress lines: from the start to the first, and so on, to the end."""
    child, times = start(folder, ranks), [time.monotonic()]
    said = []
    assert child.stderr is not None
    for line in child.stderr:
        said.append(line)
        if line.startswith("train: step"):
            times.append(time.monotonic())
    if child.wait():
        sys.exit(f"the undisturbed run failed:\n{''.join(said)}")
    times.append(time.monotonic())
    return [after - before for before, after in pairwise(times)]


def disturbed(
    folder: Path, ranks: int, number: int, gaps: Sequence[float], expected: Mapping[str, str], random: Random
) -> Trial:
    """End a run at a random moment, and start it again until it is done."""
    for name in ("policy", "report", ".amopo"):
        shutil.rmtree(folder / name, ignore_errors=True)
    ended = [end_once(folder, ranks, gaps, WAYS[number % len(WAYS)], random)]
    while random.random() < AGAIN:
        ended.append(end_once(folder, ranks, gaps, random.choice(WAYS), random))
    child = start(folder, ranks)
    said = child.communicate()[1]
    if child.returncode:
        sys.stderr.write(said)
    return Trial(ranks, number, ended, {name: digests(folder).get(name) == expected[name] for name in expected})


def end_once(folder: Path, ranks: int, gaps: Sequence[float], way: str, random: Random) -> Ended:
    """Start a run and end it at a random moment: a random time after a random one of its progress lines."""
    line = random.randrange(len(gaps) - 1)  # after the last one there is little to end
    child = start(folder, ranks)
    seen = wait_for_lines(child, line)
    with suppress(subprocess.TimeoutExpired):
        child.wait(random.uniform(0, gaps[line]))
    if way == "SIGTERM":
        child.terminate()
    else:
        kill_all(child)
    child.communicate()
    if way == "torn" and child.returncode:
        tear_newest(folder)
    return Ended(way, seen, child.returncode)


def wait_for_lines(child: subprocess.Popen[str], lines: int) -> int:
    """Read progress lines until there were so many, or the run ended; how many there were."""
    seen = 0
    assert child.stderr is not None
    while seen < lines and (line := child.stderr.readline()):
        seen += line.startswith("train: step")
    return seen


def kill_all(child: subprocess.Popen[str]) -> None:
    """Send SIGKILL to the stage and all that came of it, as a machine does that is switched off."""
    with suppress(psutil.NoSuchProcess):
        family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        child.wait()
        psutil.wait_procs(family[1:])


def tear_newest(folder: Path) -> None:
    """Take the newest checkpoint's mark and half of its weights."""
    marks = sorted(folder.glob(".amopo/checkpoints/*/checkpoints/*/complete"), key=lambda path: path.stat().st_mtime)
    if marks:
        weights = marks[-1].parent / "model.safetensors"
        os.truncate(weights, weights.stat().st_size // 2)
        marks[-1].unlink()


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of what is compared, by name."""
    return {name: sha256((folder / name).read_bytes()).hexdigest() for name in COMPARED if (folder / name).is_file()}


def told(trial: Trial) -> str:
    """One line of a trial."""
    ends = ", ".join(f"{ended.way} after line {ended.line} (exit {ended.status})" for ended in trial.ended)
    return f"{ends}: {'the same' if all(trial.same.values()) else f'DIFFERS {trial.same}'}"


def results_table(trials: Sequence[Trial]) -> Table:
    """How many came to the same bytes, by ranks and by the first way in which they were ended."""
    table = Table(title="Killed runs against the undisturbed one")
    for column in ("ranks", "ended by", "runs", "ends", *(f"same {name}" for name in COMPARED)):
        table.add_column(column)
    for ranks in sorted({trial.ranks for trial in trials}):
        for way in WAYS:
            found = [trial for trial in trials if (trial.ranks, trial.ended[0].way) == (ranks, way)]
            same: list[Any] = [sum(trial.same[name] for trial in found) for name in COMPARED]
            row = [ranks, way, len(found), sum(len(trial.ended) for trial in found), *same]
            table.add_row(*map(str, row))
    return table


if __name__ == "__main__":
    sys.exit(main())
