"""Stage `evaluate-champion`: the champion on the candidate's test set; where there is none, the reason why.

Example: python -m amopo_core.stages.evaluate_champion --pairs data/pairs --champion models/champion
    --report reports/evaluate_champion
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from amopo_core.atomic import write_json
from amopo_core.errors import UserError
from amopo_core.stages.command import exit_with, parse_paths

if TYPE_CHECKING:
    from amopo_core.config import Params


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the champion, or write why that is skipped."""
    from amopo_core.evaluation.measurement import Measurement, write_measurement
    from amopo_core.params_file import read_params

    paths = parse_paths(__doc__ or "", ["pairs", "champion", "report"], argv)
    params = read_params()
    note = paths.champion / "no_champion.json"
    if note.is_file():
        write_measurement(paths.report / "champion.jsonl", Measurement(pairs=[], answers=[]))
        write_json(paths.report / "report.json", {"skipped": reason(note)})
    else:
        evaluate(paths.champion, paths.pairs, params, paths.report)


def evaluate(champion: Path, pairs: Path, params: Params, report: Path) -> None:
    """Write what the champion did, and its means."""
    from amopo_core.data.tables import read_pairs
    from amopo_core.evaluation.judge import load_judge
    from amopo_core.evaluation.measurement import write_measurement
    from amopo_core.evaluation.measuring import measure_folder
    from amopo_core.evaluation.report import policy_numbers

    judge, test = load_judge(Path(params.evaluation.judge)), read_pairs(pairs / "test.parquet")
    measurement = measure_folder(champion, test, judge, params)
    write_measurement(report / "champion.jsonl", measurement)
    write_json(report / "report.json", policy_numbers(measurement, params))


def reason(note: Path) -> str:
    """Why there is no champion.

    Raises:
        UserError: the note does not say.
    """
    try:
        return str(json.loads(note.read_text(encoding="utf-8"))["reason"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f'{note} is no {{"reason": …}}; remove the folder and start `amopo retrain` again') from None


if __name__ == "__main__":
    exit_with(main)
