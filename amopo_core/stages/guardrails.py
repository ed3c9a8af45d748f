"""Stage `guardrails`: how far the candidate moved from its base and the champion, and the user's own prompts.

Example: python -m amopo_core.stages.guardrails --answers reports/evaluate/candidate.jsonl --base models/base
    --policy models/policy --champion models/champion --report reports/guardrails
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from amopo_core.atomic import replacing, write_json
from amopo_core.stages.command import exit_with, parse_paths

PATHS = ("answers", "base", "policy", "champion", "report")


def main(argv: Sequence[str] | None = None) -> None:
    """Hold the candidate against its base and the champion, write the numbers and what they come from."""
    from amopo_core.evaluation.guarding import guard
    from amopo_core.evaluation.guardrails import guardrail_numbers
    from amopo_core.evaluation.judge import load_judge
    from amopo_core.evaluation.measurement import read_measurement
    from amopo_core.evaluation.measuring import policy_to_measure
    from amopo_core.evaluation.regression import read_regression
    from amopo_core.params_file import read_params

    paths = parse_paths(__doc__ or "", PATHS, argv)
    params = read_params()
    judge = load_judge(Path(params.evaluation.judge))
    prompts = read_regression(Path(params.promotion.regression), judged=judge is not None)
    answers = read_measurement(paths.answers).answers
    has_champion = not (paths.champion / "no_champion.json").is_file()
    found = guard(
        policy_to_measure(paths.policy, params),
        policy_to_measure(paths.base, params),
        policy_to_measure(paths.champion, params) if has_champion else None,
        answers,
        prompts,
        judge,
        params,
    )
    _write_rows(paths.report / "divergence.jsonl", found.divergence_rows)
    _write_rows(paths.report / "regression.jsonl", found.regression_rows)
    write_json(paths.report / "report.json", guardrail_numbers(found.guardrails))


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with replacing(path) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    exit_with(main)
