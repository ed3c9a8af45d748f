"""Stage `normalize`: stored feedback to rated responses on the common scale; what cannot be used to quarantine."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amopo_core.atomic import replacing, write_json
from amopo_core.errors import UserError
from amopo_core.stages.command import exit_with, parse_paths

if TYPE_CHECKING:
    from amopo_core.data.normalize import Normalized, Quarantined


def main(argv: Sequence[str] | None = None) -> None:
    """Normalise the feedback of the declared sources; nothing is written unless at least one row can be used."""
    from amopo_core.data.batches import read_batches, undeclared_batches
    from amopo_core.data.normalize import normalize
    from amopo_core.data.tables import write_rated
    from amopo_core.params_file import read_params

    paths = parse_paths(__doc__ or "", ["feedback", "normalized", "quarantine", "report"], argv)
    params = read_params()
    dimensions = list(params.dimensions)
    result = normalize(read_batches(paths.feedback, params.sources), params.sources, dimensions)
    if not result.responses:
        raise UserError(_nothing_left(result.quarantined))
    report = quality_report(result, dimensions, undeclared_batches(paths.feedback, params.sources))
    write_rated(paths.normalized / "responses.parquet", result.responses, dimensions)
    write_quarantine(paths.quarantine / "rows.jsonl", result.quarantined)
    write_json(paths.report, report)
    sys.stderr.write(_summary(report, paths.quarantine))


def quality_report(result: Normalized, dimensions: Sequence[str], undeclared: Mapping[str, int]) -> dict[str, Any]:
    """What came in, what became of it, and how much the raters agree."""
    return {
        "prompts": len({response.prompt_id for response in result.responses}),
        "responses": len(result.responses),
        "rows": {
            "incoming": sum(count.incoming for count in result.counts.values()),
            "normalized": sum(count.normalized for count in result.counts.values()),
            "quarantined": len(result.quarantined),
        },
        "sources": {
            name: asdict(count) | {"quarantined": dict(sorted(count.quarantined.items()))}
            for name, count in result.counts.items()
        },
        "dimensions": {name: _spread([r.scores[name] for r in result.responses]) for name in dimensions},
        "agreement": _spread([response.agreement for response in result.responses]),
        "undeclared_batches": dict(undeclared),
    }


def write_quarantine(path: Path, rows: Sequence[Quarantined]) -> None:
    """Write the refused rows, one JSON object a line."""
    with replacing(path) as file:
        for row in rows:
            file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")


def _spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """How many responses have a value, and their mean."""
    given = [value for value in values if value is not None]
    return {"responses": len(given), "mean": fsum(given) / len(given) if given else None}


def _nothing_left(quarantined: Sequence[Quarantined]) -> str:
    """The message for feedback without one usable row: the most frequent reasons, each with its first row."""
    rows: dict[str, list[Quarantined]] = {}
    for row in quarantined:
        rows.setdefault(row.reason, []).append(row)
    frequent = sorted(rows.values(), key=len, reverse=True)[:3]
    said = [f"  {len(r)} x {r[0].reason}, first {r[0].source}/{r[0].batch}:{r[0].line}: {r[0].mend}" for r in frequent]
    lead = (
        f"none of the {len(quarantined)} rows can be used; mend the rows or their description in params.yaml, sources:"
    )
    return "\n".join([lead, *said])


def _summary(report: Mapping[str, Any], quarantine: Path) -> str:
    rows = report["rows"]
    text = f"{rows['incoming']} rows: {report['responses']} rated responses to {report['prompts']} prompts"
    if rows["quarantined"]:
        text += f"; {rows['quarantined']} rows refused, each with its reason in {quarantine / 'rows.jsonl'}"
    unrated = [name for name, spread in report["dimensions"].items() if not spread["responses"]]
    for name in unrated:
        text += f"\nno response has a score for {name}; is its field in params.yaml, sources, spelt as in the rows?"
    return text + "\n"


if __name__ == "__main__":
    exit_with(main)
