"""Stage `evaluate`: the trained policy against its base, on prompts that nothing was trained on.

Example: python -m amopo_core.stages.evaluate --pairs data/pairs --base models/base --policy models/policy
    --report reports/evaluate
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from amopo_core.atomic import replacing, write_json
from amopo_core.stages.command import exit_with, parse_paths

if TYPE_CHECKING:
    from amopo_core.config import Params
    from amopo_core.evaluation.measurement import Measurement

PICTURE = "dimensions.png"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure both policies, write what each did, then how they differ."""
    from amopo_core.data.tables import read_pairs
    from amopo_core.evaluation.judge import load_judge
    from amopo_core.evaluation.measurement import write_measurement
    from amopo_core.evaluation.measuring import measure_folder
    from amopo_core.params_file import read_params
    from amopo_core.policy_folder import check_policy_folder

    paths = parse_paths(__doc__ or "", ["pairs", "base", "policy", "report"], argv)
    params = read_params()
    judge, pairs = load_judge(Path(params.evaluation.judge)), read_pairs(paths.pairs / "test.parquet")
    for folder in (paths.base, paths.policy):
        check_policy_folder(folder)  # before the first is measured, which takes its time
    base = measure_folder(paths.base, pairs, judge, params)
    candidate = measure_folder(paths.policy, pairs, judge, params)
    write_measurement(paths.report / "base.jsonl", base)
    write_measurement(paths.report / "candidate.jsonl", candidate)
    write_report(base, candidate, params, paths.report)


def write_report(base: Measurement, candidate: Measurement, params: Params, folder: Path) -> None:
    """Write report.json, report.md and the picture."""
    from amopo_core.evaluation.comparison import available_metrics, compare
    from amopo_core.evaluation.report import BASE, CANDIDATE, comparison_numbers, markdown_report
    from amopo_core.pictures.comparison import draw_comparison

    comparisons = [compare(base, candidate, params, metric) for metric in available_metrics(candidate)]
    write_json(folder / "report.json", comparison_numbers(base, candidate, comparisons))
    draw_comparison(comparisons[0], BASE, CANDIDATE, folder / PICTURE)
    with replacing(folder / "report.md") as file:
        file.write(markdown_report(base, candidate, comparisons, params.evaluation.confidence, PICTURE))


if __name__ == "__main__":
    exit_with(main)
