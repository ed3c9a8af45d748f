"""`amopo reproduce`: a recorded run made again, and whether it is the same."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from amopo_core.errors import UserError
from amopo_core.stages.command import EXIT_FAILED
from flows.output import json_option, print_json
from tasks.turn import own_turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from tasks.recorded import Recorded
    from tasks.reproduction import Compared, Finding, Reproduction

_SHOWN = 8
"""Digits of a digest in the table."""


@click.command()
@click.argument("run", required=False)
@click.option("--last", is_flag=True, help="The version that was registered last.")
@click.option("--check", is_flag=True, help="Verify that the record is whole, and train nothing.")
@json_option
def reproduce(run: str | None, last: bool, check: bool, as_json: bool) -> int:
    """Make a recorded run again from its feedback on, and compare every output.

    RUN is a version's number, champion, challenger, an MLflow run's id, an experiment's name or a commit. The run's own
    code runs in a folder of its own; this one is not touched. Ends with 0 where all outputs have the recorded bytes (of
    a GPU's run: all metrics within the tolerance), with 1 where any differs.

    Example: amopo reproduce champion
    """
    from tasks import git, recorded, reproduction

    if bool(run) == last:
        raise UserError("name the run to make again, such as champion or 3, or give --last; one of the two")
    git.require_workspace()
    found = recorded.find(run) if run else recorded.newest()
    if check:
        with own_turn():
            findings = reproduction.check(found)
        _show_check(found, findings, as_json=as_json)
        return 0 if all(finding.holds for finding in findings) else EXIT_FAILED
    _say_differences(found)
    with own_turn():  # a second one would take the first one's folder away
        made = reproduction.reproduce(found, lambda line: click.echo(line, err=True))
    if as_json:
        print_json(_as_json(found, made))
    else:
        _show(found, made)
    return 0 if made.same else EXIT_FAILED


def _say_differences(found: Recorded) -> None:
    """What is another than when the run was recorded, said before anything is made."""
    from tasks.environment import differences

    click.echo(f"making {found.name} again, recorded in commit {found.commit[:12]}", err=True)
    for line in differences(found.tags):
        click.echo(f"not as it was recorded: {line}; other bytes may come out", err=True)


def _show_check(found: Recorded, findings: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        holds = all(finding.holds for finding in findings)
        print_json({"run": found.name, "commit": found.commit, "whole": holds, "findings": [*map(asdict, findings)]})
        return
    click.echo(f"{found.name}, recorded in commit {found.commit[:12]}")
    for finding in findings:
        click.echo(f"{'ok' if finding.holds else 'wrong':<6} {finding.said}")


def _as_json(found: Recorded, made: Reproduction) -> dict[str, Any]:
    metrics = {name: {"recorded": then, "now": now} for name, (then, now) in made.metrics.items()}
    return {
        "run": found.name,
        "commit": found.commit,
        "same": made.same,
        "outputs": [asdict(output) | {"same": output.same} for output in made.outputs],
        "metrics": metrics,
        "folder": None if made.same else str(made.folder),
    }


def outputs_table(name: str, outputs: Sequence[Compared]) -> Table:
    """Every output below its stage, its path whole: the digest that was recorded, the digest now, what differs."""
    from rich.table import Table

    table = Table(title=f"{name}, made again")
    table.add_column("stage, its outputs", no_wrap=True)
    for column in ("recorded", "now", ""):
        table.add_column(column)
    for stage, made in groupby(outputs, key=lambda output: output.stage):
        table.add_row(stage)
        for output in made:
            digest = output.now[:_SHOWN] if output.now else "none"
            said = "same" if output.same else "[bold]DIFFERS[/bold]"
            table.add_row(f"  {output.path}", output.recorded[:_SHOWN], digest, said)
    return table


def _show(found: Recorded, made: Reproduction) -> None:
    from rich.console import Console

    console = Console()
    console.print(outputs_table(found.name, made.outputs))
    for name in made.off:
        then, now = made.metrics[name]
        console.print(f"{name}: {then:g} recorded, {now} now: off by more than {made.tolerance:g}", highlight=False)
    if made.tolerance is not None:
        held = "all" if made.same else "not all"
        console.print(
            f"a GPU's run: {held} metrics are within {made.tolerance:g} of the recorded ones", highlight=False
        )
    elif made.same:
        console.print(f"all {len(made.outputs)} outputs are the same, byte for byte", highlight=False)
    if not made.same:
        console.print(f"what was made stays in {made.folder}", highlight=False)
