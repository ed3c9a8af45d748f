"""The `amopo` command line. A command imports what it needs when it runs, so that --help comes at once."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from amopo_core.collector import look_less_often
from amopo_core.errors import UserError
from amopo_core.stages.command import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USER_ERROR, MESSAGE, disk_failure
from flows.approval import approve
from flows.comparison import compare
from flows.data_commands import data
from flows.environment import require_operation, set_defaults
from flows.export import export
from flows.history import history
from flows.output import json_option, print_json
from flows.promotion import promote, rollback
from flows.reproduction import reproduce
from flows.serving import serve, trigger
from flows.ui import ui
from flows.up import up
from flows.usage import usage
from tasks.errors import OutsideError
from tasks.turn import own_turn

PLAYGROUND = "playground"


def main() -> None:
    """Run the command line; end with 0, 1 (failed), 2 (a mistake in what was given), 130 (Ctrl-C) or 143 (SIGTERM)."""
    look_less_often()
    set_defaults()
    signal.signal(signal.SIGTERM, _end)
    sys.exit(exit_status(sys.argv[1:]))


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """Leave as Ctrl-C does, so that no child stays behind."""
    click.echo("stopped", err=True)
    sys.exit(128 + number)


def exit_status(arguments: list[str]) -> int:
    """The status of a command; expected failures are said in one message, without a traceback."""
    try:
        return cli.main(arguments, prog_name="amopo", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return EXIT_USER_ERROR
    except UserError as error:
        return _said(f"{MESSAGE}{error}", EXIT_USER_ERROR)
    except OutsideError as error:
        return _said(f"{MESSAGE}{error}", EXIT_FAILED)
    except (KeyboardInterrupt, click.Abort):
        return _said("interrupted", EXIT_INTERRUPTED)
    except Exception as error:
        if (failure := disk_failure(error)) is None:
            raise
        message, status = failure
        return _said(f"{MESSAGE}{message}", status)


@click.group()
@click.version_option(package_name="amopo-pipeline")
def cli() -> None:
    """Keep a language model aligned with feedback in several dimensions.

    Run in the project's root. Example: amopo demo
    """
    require_operation()


cli.add_command(data)
cli.add_command(reproduce)
cli.add_command(promote)
cli.add_command(rollback)
cli.add_command(approve)
cli.add_command(history)
cli.add_command(compare)
cli.add_command(export)
cli.add_command(ui)
cli.add_command(up)
cli.add_command(serve)
cli.add_command(trigger)


@cli.command()
@json_option
def demo(as_json: bool) -> None:
    """Make the playground's feedback and run the whole pipeline on it, in minutes on a CPU.

    Example: amopo demo
    """
    from amopo_core.params_file import read_params
    from amopo_core.preflight import check_inputs
    from tasks import git

    git.require_workspace()
    params = read_params()
    if PLAYGROUND not in params.sources:
        listed = ", ".join(params.sources)
        raise UserError(
            f"params.yaml: the demo needs the source `{PLAYGROUND}`, and sources lists {listed}; bring it back with git"
        )
    check_inputs(params)
    with own_turn():
        _drop_playground_feedback()
        _run_flow(as_json)


@cli.command()
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--source", required=True, metavar="NAME", help="Whose feedback it is: a name under `sources`.")
@click.option("--dry-run", is_flag=True, help="Say what would be taken, and store nothing.")
@json_option
def ingest(path: Path | None, source: str, dry_run: bool, as_json: bool) -> None:
    """Add a feedback file or folder (JSONL, JSON, CSV, Parquet; also .gz, .zst) to what is trained on.

    Without PATH, take what is new in the system that the source names under `fetch` (SQL, MLflow traces, a data set).
    Says what it found: shape, fields, scales, rows that can be used and rows refused by reason. What is there already
    is not added again. While a run is at work, files wait in the inbox, and the next run takes them.

    Example: amopo ingest ratings.jsonl --source support --dry-run
    """
    from contextlib import nullcontext

    from amopo_core.data.intake import nothing_stored, take_path
    from amopo_core.data.reading import read_files
    from amopo_core.params_file import read_params
    from flows import ingestion
    from tasks import git
    from tasks.dvc_command import CHAMPION, FEEDBACK, add
    from tasks.fetch import take_source
    from tasks.laid_in import lay_in, turn_to_ingest
    from tasks.no_champion import ensure_champion_folder

    git.require_workspace()
    params = read_params()
    taken = []
    with nullcontext(True) if dry_run else turn_to_ingest() as has_turn:
        if not has_turn and path is None:
            raise OutsideError(
                "a run is at work here, and every run takes what is new in such a source; wait for its end"
            )
        with nothing_stored(FEEDBACK, source) if dry_run or not has_turn else nullcontext(FEEDBACK) as feedback:
            found = take_path(path, source, params, feedback) if path else take_source(source, params, feedback)
            for each in found:
                taken.append(each)
                if not as_json and has_turn:
                    ingestion.show(each, dry_run=dry_run)
        if path and not has_turn:
            laid = [str(place) for place in lay_in(read_files(path), source)]
            if as_json:
                print_json({"source": source, "stored": False, "waiting": laid})
            else:
                click.echo(f"a run is at work: {', '.join(laid)} waits for the next one")
            return
        if not dry_run:
            ensure_champion_folder()
            add(FEEDBACK, CHAMPION)
    if as_json:
        print_json(ingestion.as_json(taken, source, is_declared=source in params.sources, dry_run=dry_run))
    else:
        ingestion.show_next(taken, source, is_declared=source in params.sources, dry_run=dry_run)


@cli.command()
@click.option(
    "--set", "assignments", multiple=True, metavar="SECTION.KEY=VALUE", help="Change params.yaml first; repeatable."
)
@click.option("--wait", is_flag=True, help="Wait for another run at work here, instead of ending with 1.")
@json_option
def retrain(assignments: tuple[str, ...], wait: bool, as_json: bool) -> None:
    """Take the inbox; where anything is new or changed: train, evaluate, register, and promote what is better.

    Example: amopo retrain --set objective.beta=1.0
    """
    from amopo_core.params_file import PARAMS_FILE, override
    from amopo_core.preflight import check_inputs
    from tasks import git

    git.require_workspace()
    with own_turn(wait=_say if wait else None):
        override(PARAMS_FILE, assignments, check_inputs)
        _run_flow(as_json)


@cli.command()
@json_option
def status(as_json: bool) -> None:
    """Show champion, challenger, the last runs and the last that made a version.

    Example: amopo status
    """
    from flows.status import read_status, show_status
    from tasks import git

    git.require_workspace()
    found = read_status()
    if as_json:
        print_json(found)
    else:
        show_status(found)


@cli.command()
@json_option
def doctor(as_json: bool) -> int:
    """Look at what would train here: devices, ranks, precision, kernels, disk, versions, the starting policy.

    Starts the ranks of the launch file (AMOPO_LAUNCH) to count them; trains nothing. Takes up to a minute, and ends
    with 1 where something is wrong, with 0 where all is well or only worth a warning.

    Example: AMOPO_LAUNCH=configs/accelerate/ddp.yaml amopo doctor
    """
    from amopo_core.doctor.examine import examine

    found = []
    for topic, finding in examine():
        found.append({"topic": topic, "status": finding.status, "said": finding.said, "mend": finding.mend})
        if not as_json:
            click.echo(finding.line(topic))
    is_wrong = any(each["status"] == "wrong" for each in found)
    if as_json:
        print_json({"wrong": is_wrong, "findings": found})
    return EXIT_FAILED if is_wrong else 0


def _drop_playground_feedback() -> None:
    """Put the playground's feedback into the inbox; what was ingested before is found known there."""
    from amopo_core.atomic import replacing
    from amopo_core.params_file import read_params
    from amopo_core.playground.feedback import feedback_rows
    from tasks.inbox import INBOX

    with replacing(INBOX / PLAYGROUND / "feedback.jsonl") as file:
        for row in feedback_rows(read_params().playground):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _run_flow(as_json: bool) -> None:
    click.echo("starting Prefect ...", err=True)
    from flows.server import starting_server

    server = starting_server()  # takes longer than the imports below, which need a core of their own
    from rich.console import Console

    from flows import summary
    from flows.console import show_own_lines
    from flows.prefect_away import reaching_prefect
    from flows.retrain import retrain as flow
    from flows.stopped import ending_when_stopped

    show_own_lines()
    with server(), reaching_prefect(), ending_when_stopped():
        outcome = flow()
    if as_json:
        print_json(summary.as_json(outcome, usage()))
    else:
        summary.show(outcome, usage(), Console())


def _say(line: str) -> None:
    click.echo(line, err=True)


def _said(message: str, code: int) -> int:
    click.echo(message, err=True)
    return code


if __name__ == "__main__":
    main()
