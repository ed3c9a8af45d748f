"""What commands share: --json, the --reason of those that move the champion, times as people read them."""

from __future__ import annotations

import json
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of text.")
reason_option = click.option("--reason", required=True, metavar="TEXT", help="Why; it is written into the ledger.")


def say_note(note: str | None) -> None:
    """What a command found amiss beside what it did, on stderr."""
    if note:
        click.echo(f"note: {note}", err=True)


def minute(at: str) -> str:
    """Date, hour and minute of an ISO time; the seconds are in --json."""
    return at[:16]


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
