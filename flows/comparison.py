"""`amopo compare`: any two versions side by side on the current test set."""

from __future__ import annotations

from pathlib import Path

import click

from amopo_core.errors import UserError
from flows.output import json_option, print_json

PICTURES = Path("reports/compare")


@click.command()
@click.argument("baseline", metavar="A")
@click.argument("candidate", metavar="B")
@json_option
def compare(baseline: str, candidate: str, as_json: bool) -> None:
    """Measure versions A and B (numbers or aliases) on the current test set: a table and a picture per dimension.

    The difference is B minus A, with the paired bootstrap interval that a promotion goes by. A version is measured once
    for a test set and parameters (a GPU is used where there is one); later comparisons take seconds.

    Example: amopo compare champion challenger
    """
    from amopo_core.evaluation.comparison import compare as contrast
    from amopo_core.params_file import read_params
    from amopo_core.pictures.comparison import draw_comparison
    from tasks import git, registry
    from tasks.measurements import is_kept, measure_version

    git.require_workspace()
    params = read_params()
    before, after = registry.named(baseline), registry.named(candidate)
    if before == after:
        raise UserError(f"{baseline} and {candidate} are both version {before.number}; name two versions")
    for version in (before, after):
        if not is_kept(version, params):
            click.echo(f"measuring version {version.number} ...", err=True)
            measure_version(version, params)
    found = contrast(measure_version(before, params), measure_version(after, params), params)
    names = f"version {before.number}", f"version {after.number}"
    picture = PICTURES / f"{before.number}-{after.number}.png"
    draw_comparison(found, names[0], names[1], picture)

    from flows.summary import comparison_table
    from tasks.verdict import comparison_numbers

    if as_json:
        print_json(
            {
                "baseline": before.number,
                "candidate": after.number,
                "metric": found.metric.name,
                "unit": found.metric.unit,
                "prompts": found.prompts,
                "dimensions": comparison_numbers(found),
                "picture": str(picture),
            }
        )
        return
    from rich.console import Console

    console = Console()
    console.print(comparison_table(found, names[0], names[1]))
    console.print(f"Picture       {picture}", highlight=False)
