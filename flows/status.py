"""Who is champion, who is challenger, and what ran lately."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from flows.output import minute
from tasks import approval, ledger, registry, tracking
from tasks.ledger_state import Ledger

GAIN = 7
"""Width of the gains' column, which leaves a terminal of 80 columns room for the others."""


def read_status() -> dict[str, Any]:
    """The registry's aliases, who waits for approval, and the newest runs, in JSON's types."""
    state = ledger.read()
    return {
        "champion": _champion(state),
        "challenger": _described(registry.by_alias(registry.CHALLENGER)),
        "waiting": [version.number for version in approval.waiting()],
        "note": state.trouble,
        "runs": tracking.last_runs(),
    }


def show_status(found: dict[str, Any]) -> None:
    """Print it."""
    console = Console()
    for alias in (registry.CHAMPION, registry.CHALLENGER):
        version = found[alias]
        none = "none is served" if alias == registry.CHAMPION and found["note"] else "none yet"
        said = f"{version['uri']}  ({_standing(version)})" if version else none
        console.print(f"{alias:<10}  {said}", highlight=False)
    for number in found["waiting"]:
        said = f"version {number} waits: amopo approve {number} --reason TEXT"
        console.print(f"{'approval':<10}  {said}", highlight=False)
    if found["note"]:
        console.print(f"{'note':<10}  {found['note']}", highlight=False, soft_wrap=True)
    if not found["runs"]:
        console.print("no run has trained here yet; `amopo demo` or `amopo retrain` makes one", highlight=False)
        return
    table = Table("started (UTC)", title="last runs")
    table.add_column("run", no_wrap=True)  # other commands take the id whole
    table.add_column("status")
    table.add_column("version")
    table.add_column("gain over base", max_width=GAIN)
    for run in found["runs"]:
        difference = run["overall_difference"]
        shown = "" if difference is None else f"{difference:+.3f}"
        table.add_row(minute(run["started"]), run["run"], run["status"], run["version"] or "", shown)
    console.print(table)


def _standing(version: dict[str, Any]) -> str:
    """How it became champion, or what was decided on it."""
    how = version.get("how") or version["verdict"]
    return f"{how} to" if how == "rolled back" else str(how)


def _champion(state: Ledger) -> dict[str, Any] | None:
    """With how it became champion and since when, where the ledger says so."""
    found = _described(registry.by_alias(registry.CHAMPION))
    last = state.entries[-1] if state.entries else None
    if found and last and last.version == found["version"]:
        found |= {"how": last.how, "since": last.at, "by": last.by}
    return found


def _described(version: registry.Version | None) -> dict[str, Any] | None:
    if version is None:
        return None
    tags = version.tags
    return {
        "uri": version.uri,
        "version": version.number,
        "verdict": tags.get(registry.VERDICT_TAG, "not decided yet"),
        "run": version.run_id,
        "commit": tags.get("commit"),
    }
