"""Who is champion, who is challenger, and what ran lately."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from tasks import registry, tracking


def read_status() -> dict[str, Any]:
    """The registry's aliases and the newest runs, in JSON's types."""
    return {
        "champion": _described(registry.by_alias(registry.CHAMPION)),
        "challenger": _described(registry.by_alias(registry.CHALLENGER)),
        "runs": tracking.last_runs(),
    }


def show_status(found: dict[str, Any]) -> None:
    """Print it."""
    console = Console()
    for alias in (registry.CHAMPION, registry.CHALLENGER):
        version = found[alias]
        said = f"{version['uri']}  ({version['verdict']})" if version else "none yet"
        console.print(f"{alias:<10}  {said}", highlight=False)
    table = Table(title="last runs")
    for column in ("started", "run", "status", "version", "gain over base"):
        table.add_column(column)
    for run in found["runs"]:
        difference = run["overall_difference"]
        shown = "" if difference is None else f"{difference:+.3f}"
        table.add_row(run["started"], run["run"], run["status"], run["version"] or "", shown)
    console.print(table)


def _described(version: registry.Version | None) -> dict[str, Any] | None:
    if version is None:
        return None
    tags = version.tags
    return {
        "uri": version.uri,
        "version": version.number,
        "verdict": tags.get(registry.VERDICT_TAG, "not decided yet"),
        "replaced": tags.get(registry.REPLACED_TAG),
        "run": version.run_id,
        "commit": tags.get("commit"),
    }
