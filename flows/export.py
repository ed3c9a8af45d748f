"""`amopo export`: a version as a checkpoint for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from flows.output import json_option, print_json


@click.command()
@click.argument("version")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@json_option
def export(version: str, folder: Path, as_json: bool) -> None:
    """Write VERSION (a number or an alias) to DIR as a transformers checkpoint that vLLM or any other server loads.

    Weights in safetensors (adapters are merged into their base), configuration, tokenizer, chat template, generation
    configuration, and a model card that names version, run, commit and digests. DIR must be new or empty.

    Example: amopo export champion /models/support-2026-05
    """
    from tasks import git, registry
    from tasks.export import export as write

    git.require_workspace()
    found = registry.named(version)
    files = write(found, folder)
    if as_json:
        print_json({"version": found.number, "folder": str(folder), "files": files})
    else:
        click.echo(f"{found.uri} is in {folder}: {', '.join(files)}")
