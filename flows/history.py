"""`amopo history`: who was champion from when to when, why, and by whom."""

from __future__ import annotations

from dataclasses import asdict
from itertools import zip_longest
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import click

from flows.output import json_option, minute, print_json, say_note

if TYPE_CHECKING:
    from tasks.ledger_state import Ledger

_SHORT = 160
"""Characters of a reason that the table shows."""


@click.command()
@json_option
def history(as_json: bool) -> None:
    """Show who was champion from when to when, why and by whom; all of each reason with --json.

    What became of the alias outside this program is written down first, and a promotion that was killed is completed.

    Example: amopo history
    """
    from tasks import git, ledger

    git.require_workspace()
    state, trouble = ledger.reconcile()
    rows = _rows(state)
    if as_json:
        print_json({"champion": state.champion, "served": state.alias, "note": trouble, "history": rows})
        return
    say_note(trouble)
    if rows:
        _show(rows)
    else:
        click.echo("no version was champion yet; `amopo retrain` promotes what is better than its base policy")


def _rows(state: Ledger) -> list[dict[str, Any]]:
    """The entries, oldest first, each until the next one began."""
    rows = []
    for entry, following in zip_longest(state.entries, state.entries[1:]):
        fields = asdict(entry)
        rows.append(
            {"version": fields.pop("version"), "from": fields.pop("at"), "until": following and following.at} | fields
        )
    return rows


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="champions")
    table.add_column("version", justify="right")
    table.add_column("from, until (UTC)", no_wrap=True)  # one above the other: 80 columns hold the reason too
    table.add_column("why, by")
    for row in rows:
        why = f"{row['how']}: {shorten(row['why'], _SHORT, placeholder=' ...')}\nby {row['by']}"
        until = minute(row["until"]) if row["until"] else "now"
        table.add_row(row["version"] or "none", f"{minute(row['from'])}\n{until}", escape(why))
    Console().print(table)
