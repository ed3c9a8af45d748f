"""`amopo promote` and `amopo rollback`: another champion by a person's word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flows.output import json_option, print_json, reason_option, say_note

if TYPE_CHECKING:
    from tasks.registry import Version


@click.command()
@click.argument("version")
@reason_option
@json_option
def promote(version: str, reason: str, as_json: bool) -> None:
    """Make VERSION (a number, or challenger) the champion, whatever its verdict was.

    Its files are loaded first. Who serves models:/amopo@champion gets the old champion or the new one, never half of
    one. Runs beside a retraining; one that decides after this compares again.

    Example: amopo promote 3 --reason "preferred by the support team"
    """
    from tasks import git, registry, succession
    from tasks.person import person

    git.require_workspace()
    succession.require_reason(reason)
    found = registry.named(version)
    trouble = succession.promote(found, why=reason, by=person())
    _say(found, trouble, reason, as_json=as_json)


@click.command()
@click.option("--to", metavar="VERSION", help="A champion of the past; by default the one before the present one.")
@reason_option
@json_option
def rollback(to: str | None, reason: str, as_json: bool) -> None:
    """Make the champion before champion again; once more goes one further back.

    Example: amopo rollback --reason "answers became too long"
    """
    from tasks import git, registry, succession
    from tasks.person import person

    git.require_workspace()
    succession.require_reason(reason)
    target, trouble = succession.roll_back(registry.named(to) if to else None, why=reason, by=person())
    _say(target, trouble, reason, as_json=as_json)


def _say(version: Version, trouble: str | None, reason: str, *, as_json: bool) -> None:
    from tasks.notification import notify

    notify("promotion", f"{version.uri} is champion now", reason)
    if as_json:
        print_json({"champion": version.number, "note": trouble})
        return
    say_note(trouble)
    click.echo(f"{version.uri} is champion now")
