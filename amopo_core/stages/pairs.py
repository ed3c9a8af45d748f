"""Stage `pairs`: rated responses to preference pairs for training, validation and test."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from amopo_core.atomic import write_json
from amopo_core.errors import UserError
from amopo_core.stages.command import exit_with, parse_paths

if TYPE_CHECKING:
    from amopo_core.data.pairs import Split, SplitPairs


def main(argv: Sequence[str] | None = None) -> None:
    """Make and split the pairs; nothing is written unless there is something to train on and something to test on."""
    from amopo_core.data.pairs import SPLITS, make_pairs
    from amopo_core.data.tables import read_rated, write_pairs
    from amopo_core.params_file import read_params

    paths = parse_paths(__doc__ or "", ["normalized", "pairs", "report"], argv)
    params = read_params()
    responses = read_rated(paths.normalized / "responses.parquet")
    splits = make_pairs(responses, params.dimensions, params.pairs)
    required: tuple[Split, ...] = ("train", "test")
    for split in required:
        if not splits[split].pairs:
            raise UserError(_empty(split, splits))
    for split in SPLITS:
        write_pairs(paths.pairs / f"{split}.parquet", splits[split].pairs, list(params.dimensions))
    write_json(paths.report, {split: counts(splits[split]) for split in SPLITS})
    sys.stderr.write(", ".join(f"{split}: {len(splits[split].pairs)} pairs" for split in SPLITS) + "\n")


def counts(split: SplitPairs) -> dict[str, Any]:
    """The report of a split; `conflicting_share` is None where there are no pairs."""
    numbers = {field.name: getattr(split, field.name) for field in fields(split) if field.name != "pairs"}
    share = split.conflicting / len(split.pairs) if split.pairs else None
    return {"pairs": len(split.pairs), **numbers, "conflicting": split.conflicting, "conflicting_share": share}


def _empty(empty: Split, splits: Mapping[Split, SplitPairs]) -> str:
    """The message for a split without pairs: what there was, why nothing came of it, what to do."""
    split = splits[empty]
    prompts = sum(each.prompts for each in splits.values())
    return (
        f"the {empty} split has no pairs: {split.prompts} of {prompts} prompts are in it,"
        f" {split.single_response_prompts} of them with one response only; dropped were {split.tied} ties,"
        f" {split.duplicates} duplicates and {split.undecided} without a score in common that decides"
        " (pairs.order_by); add feedback with two or more differently rated responses a prompt, or change"
        " pairs.test_share and pairs.validation_share"
    )


if __name__ == "__main__":
    exit_with(main)
