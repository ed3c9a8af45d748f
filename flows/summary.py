"""The end of a run as a person and as a program reads it."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from amopo_core.evaluation.comparison import Comparison, Contrast
from flows.retrain import FEEDBACK_REPORT, REPORT, Outcome
from flows.usage import Usage
from tasks.mlflow_server import mlflow_pages
from tasks.registry import VERDICT_TAG
from tasks.standing import AWAITING, PROMOTED
from tasks.verdict import comparison_numbers


def show(outcome: Outcome, used: Usage, console: Console) -> None:
    """Print the tables, the verdict with its reasons, where to look, and what it took."""
    if outcome.measured is None or outcome.verdict is None:
        verdict = outcome.version.tags[VERDICT_TAG]
        console.print(
            f"Nothing new: this very state is {outcome.version.uri}, settled earlier: {verdict} ({used}).",
            highlight=False,
        )
        return
    console.print()
    console.print(comparison_table(outcome.measured.against_base, "base"))
    if outcome.measured.against_champion:
        console.print(comparison_table(outcome.measured.against_champion, "champion"))
    console.print(f"\n[bold]{outcome.version.uri}[/bold], {_became(outcome)}", highlight=False)
    for reason in outcome.verdict.reasons:
        console.print(f"  - {reason}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"\nFeedback      {FEEDBACK_REPORT}\nReport        {REPORT}", highlight=False)
    console.print(f"MLflow UI     {mlflow_pages() or 'amopo ui'}\nVersions      amopo status", highlight=False)
    console.print(f"Took          {used}", highlight=False)


def comparison_table(comparison: Comparison, baseline: str, candidate: str = "candidate") -> Table:
    """A row per dimension and one overall: both means, and their difference with its interval."""
    table = Table(title=f"{comparison.metric.name} ({comparison.metric.unit}), {comparison.prompts} held-out prompts")
    table.add_column("dimension")
    for column in (baseline, candidate, "difference", "interval"):
        table.add_column(column, justify="right")
    for name, contrast in comparison.dimensions.items():
        table.add_row(name.replace("_", " "), *_cells(contrast))
    table.add_section()
    table.add_row("all dimensions", *_cells(comparison.overall), style="bold")
    return table


def as_json(outcome: Outcome, used: Usage) -> dict[str, Any]:
    """The outcome in JSON's types."""
    measured, verdict = outcome.measured, outcome.verdict
    return {
        "due": measured is not None,
        "version": outcome.version.number,
        "promoted": outcome.standing == PROMOTED if verdict else None,
        "verdict": outcome.standing or outcome.version.tags[VERDICT_TAG],
        "reasons": list(verdict.reasons) if verdict else [],
        "executed": list(outcome.executed),
        "seconds": round(used.seconds, 1),
        "largest_process_bytes": used.largest_process,
        "against_base": comparison_numbers(measured.against_base) if measured else None,
        "against_champion": comparison_numbers(measured.against_champion)
        if measured and measured.against_champion
        else None,
    }


def _became(outcome: Outcome) -> str:
    if outcome.standing == PROMOTED:
        return "promoted: alias champion"
    if outcome.standing == AWAITING:
        return f"waits for approval: amopo approve {outcome.version.number} --reason TEXT"
    has_champion = outcome.measured is not None and outcome.measured.against_champion is not None
    stays = "the champion stays" if has_champion else "there is no champion yet"
    return f"{outcome.standing}: alias challenger, {stays}"


def _cells(contrast: Contrast | None) -> list[str]:
    if contrast is None:
        return ["not measured", "", "", ""]
    low, high = contrast.difference.low, contrast.difference.high
    colour = "green" if low > 0 else "red" if high < 0 else "yellow"
    return [
        f"{contrast.baseline.mean:.3f}",
        f"{contrast.candidate.mean:.3f}",
        f"[{colour}]{contrast.difference.mean:+.3f}[/{colour}]",
        f"{low:+.3f} to {high:+.3f}",
    ]
