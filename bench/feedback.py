"""Held-out reward accuracy per dimension before and after training on a feedback file, through the whole pipeline.

A temporary clone ingests the file, trains, evaluates and registers a model; nothing here is left behind.

Examples:
    make bench-feedback FEEDBACK=ratings.jsonl MODEL=checkpoints/small SCALE="1 5"
    make bench-feedback FEEDBACK=ratings.jsonl MODEL=made CONTEXT=2560
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from amopo_core.data.describe import describe
from amopo_core.data.reading import read_rows

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
SOURCE = "feedback"
MADE = "made"
MADE_BATCH, MADE_VOCABULARY = 8, 2048


def main() -> None:
    """Run the pipeline on the file and print the table."""
    args = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    rows = [row.fields for row in read_rows(args.feedback)]
    scores = score_fields(rows)
    with TemporaryDirectory() as temporary:
        workspace = clone(Path(temporary) / "workspace")
        scale = args.scale or seen_scale(scores)
        say(
            f"scale {scale[0]:g} to {scale[1]:g}"
            + ("" if args.scale else " (around what the rows hold; SCALE declares it)")
        )
        describe_source(workspace, list(scores), scale, args)
        model = args.model
        if args.model == MADE:
            model = str(make_base(rows, workspace, Path(temporary) / MADE, args))
        set_params(workspace, {"base": {"kind": "folder", "path": str(Path(model).resolve())}})
        amopo(workspace, "ingest", str(args.feedback.resolve()), "--source", SOURCE)
        outcome = json.loads(amopo(workspace, "retrain", "--json"))
        result = collect(workspace, args) | {key: outcome[key] for key in ("version", "promoted", "reasons")}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "feedback.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print_table(result)


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--feedback", type=Path, required=True, help="rated responses: prompt, response, a number per dimension"
    )
    parser.add_argument(
        "--model", required=True, help=f"a transformers folder, or `{MADE}`: a small policy pretrained on the file"
    )
    parser.add_argument("--scale", type=float, nargs=2, metavar=("LOW", "HIGH"), help="scale of every score")
    parser.add_argument("--context", type=int, default=512, help=f"context of a `{MADE}` policy [tokens] (default 512)")
    parser.add_argument(
        "--made-steps", type=int, default=300, help=f"pretraining steps of a `{MADE}` policy (default 300)"
    )
    parser.add_argument("--epochs", type=int, default=2, help="passes over the training pairs (default 2)")
    parser.add_argument("--max-per-prompt", type=int, default=6, help="pairs a prompt at most (default 6)")
    return parser.parse_args()


def clone(workspace: Path) -> Path:
    """A clean clone of this checkout's last commit."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(workspace)], check=True)
    return workspace


def score_fields(rows: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """The numeric fields of the rows with the lowest and highest value seen."""
    found = describe(rows, SOURCE)
    return {field.name: (field.lowest, field.highest) for field in found.fields if field.is_number}


def seen_scale(scores: dict[str, tuple[float, float]]) -> tuple[int, int]:
    """The smallest whole-numbered range that holds every score."""
    return math.floor(min(low for low, _ in scores.values())), math.ceil(max(high for _, high in scores.values()))


def describe_source(
    workspace: Path, dimensions: list[str], scale: tuple[float, float], args: argparse.Namespace
) -> None:
    """Write the clone's params.yaml for this file: its dimensions, its source, no judge."""
    set_params(
        workspace,
        {
            "dimensions": {name: {"description": f"high {name}", "weight": 1.0} for name in dimensions},
            "sources": {
                SOURCE: {
                    "rows": "responses",
                    "scores": {
                        name: {"field": name, "scale": [float(bound) for bound in scale]} for name in dimensions
                    },
                }
            },
            "pairs": {"max_per_prompt": args.max_per_prompt, "test_share": 0.25},
            "train": {
                "epochs": args.epochs,
                "batch_pairs": 16,
                "micro_batch_tokens": 8000,
                "max_length": args.context,
                "learning_rate": 3e-4,
            },
            "evaluation": {"judge": "amopo_core/judges/none.py", "max_prompts": 20, "batch_size": 8},
            "promotion": {"min_test_prompts": 10},
        },
    )


def set_params(workspace: Path, sections: dict[str, dict[str, Any]]) -> None:
    """Merge numbers into the clone's params.yaml; what a file's shape decides replaces its section."""
    yaml, path = YAML(), workspace / "params.yaml"
    params = yaml.load(path)
    for name, section in sections.items():
        params[name] = section if name in ("dimensions", "sources", "base") else dict(params[name]) | section
    yaml.dump(params, path)


def make_base(rows: list[dict[str, Any]], workspace: Path, folder: Path, args: argparse.Namespace) -> Path:
    """A small Llama pretrained on the file's prompts and responses, those of the test split left out."""
    from transformers import LlamaConfig

    from amopo_core.chat import ChatEncoder
    from amopo_core.params_file import read_params
    from amopo_core.playground.pretraining import Conversation, pretrain
    from amopo_core.playground.tokenizer import train_tokenizer
    from amopo_core.policy import Policy, save_policy

    texts = list(training_texts(rows, read_params(workspace / "params.yaml").pairs))
    tokenizer = train_tokenizer((text for pair in texts for text in pair), MADE_VOCABULARY, args.context)
    encoder = ChatEncoder(tokenizer)
    conversations = []
    for prompt, response in texts:
        encoded, answer = (
            encoder.prompt([{"role": "user", "content": prompt}], None, args.context - 128),
            encoder.response(response),
        )
        if encoded and len(encoded.ids) + len(answer) <= args.context:
            conversations.append(Conversation(encoded.ids, answer))
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=96, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=args.context, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    say(f"a base is made here from {len(conversations)} responses")
    model = pretrain(
        config, conversations, steps=args.made_steps, batch=MADE_BATCH, learning_rate=3e-3, seed=0, threads=1
    )
    save_policy(Policy(model, tokenizer), folder)
    return folder


def training_texts(rows: list[dict[str, Any]], pairs: Any) -> Iterator[tuple[str, str]]:
    """Prompt and response of every row whose prompt is not held out."""
    from amopo_core.data.segments import prompt_position

    for row in rows:
        if prompt_position([{"role": "user", "content": row["prompt"]}]) >= pairs.test_share:
            yield row["prompt"], row["response"]


def amopo(workspace: Path, *arguments: str) -> str:
    """What a command of the clone prints, run with this environment's Python; its progress goes to stderr."""
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(command, cwd=workspace, check=True, stdout=subprocess.PIPE, text=True).stdout


def collect(workspace: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The clone's reports in one place."""
    reports = workspace / "reports"
    names = {"normalize": "normalize.json", "pairs": "pairs.json", "base": "base.json"}
    names |= {"train": "train/summary.json", "evaluate": "evaluate/report.json"}
    loaded = {name: json.loads((reports / file).read_text(encoding="utf-8")) for name, file in names.items()}
    return {"feedback": args.feedback.name, "model": Path(args.model).name} | loaded


def print_table(result: dict[str, Any]) -> None:
    """Reward accuracy per dimension before and after, and what became of the rows."""
    numbers, rows, train = result["evaluate"], result["normalize"]["rows"], result["train"]
    table = Table(
        title=f"{result['feedback']}, {result['model']}: held-out reward accuracy, {numbers['pairs']} test pairs"
    )
    for column in ("dimension", "before", "after", "difference", "95 % interval"):
        table.add_column(column, justify="left" if column == "dimension" else "right")
    for name in [*result["normalize"]["dimensions"], "all_dimensions"]:
        before, after, difference, low, high = (
            numbers.get(f"accuracy/{name}/{part}", math.nan)
            for part in ("base", "candidate", "difference", "low", "high")
        )
        table.add_row(name, f"{before:.3f}", f"{after:.3f}", f"{difference:+.3f}", f"{low:+.3f} to {high:+.3f}")
    Console().print(table)
    dropped = ", ".join(f"{count} {reason}" for reason, count in train["dropped"].items()) or "0"
    print(f"rows: {rows['incoming']}, quarantined {rows['quarantined']}")
    print(f"training pairs: {train['pairs']}, prompts truncated {train['pairs_truncated']}, dropped {dropped}")
    print(f"test pairs: prompts truncated {numbers['pairs_truncated']}, unreadable {numbers['pairs_unreadable']}")
    verdict = "promoted" if result["promoted"] else "not promoted"
    print(f"version {result['version']}, {verdict}: {'; '.join(result['reasons'])}")


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr)


if __name__ == "__main__":
    main()
