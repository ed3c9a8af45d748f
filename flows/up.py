"""`amopo up`: Prefect's server, MLflow's server and `amopo serve` under one supervisor, on this machine alone."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
from click.core import ParameterSource

from amopo_core.errors import UserError
from flows.output import json_option, print_json

if TYPE_CHECKING:
    from tasks.database import Database
    from tasks.servers import Servers
    from tasks.service import Service

LOGS = Path("logs/servers")
PREFECT_DATABASE = ["PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL"]
MLFLOW_DATABASE = "MLFLOW_BACKEND_STORE_URI"
_PORT = click.IntRange(0, 65535)


@click.command()
@click.option("--prefect-port", default=4200, show_default=True, type=_PORT, help="Of Prefect's pages; 0: a free one.")
@click.option("--mlflow-port", default=5000, show_default=True, type=_PORT, help="Of MLflow's pages; 0: a free one.")
@click.option(
    *("--prefect-database", "prefect_url"), envvar=PREFECT_DATABASE, show_envvar=True, metavar="URL",
    help="PostgreSQL for Prefect; without, .amopo/prefect/prefect.db.",
)  # fmt: skip
@click.option(
    *("--mlflow-database", "mlflow_url"), envvar=MLFLOW_DATABASE, show_envvar=True, metavar="URL",
    help="PostgreSQL for MLflow; without, mlflow.db.",
)  # fmt: skip
@click.option("--no-serve", is_flag=True, help="Leave `amopo serve` out: nothing is scheduled.")
@json_option
def up(
    prefect_port: int,
    mlflow_port: int,
    prefect_url: str | None,
    mlflow_url: str | None,
    no_serve: bool,
    as_json: bool,
) -> None:
    """Run Prefect's and MLflow's servers and `amopo serve` here until Ctrl-C or SIGTERM, on this machine alone.

    Every other command in this folder finds them by itself. One that dies is started again, five times within ten
    minutes at most. A URL with a password belongs into the environment: anybody on the machine can read a command line.

    Example: amopo up --mlflow-port 5001
    """
    from tasks import git
    from tasks.database import require_usable
    from tasks.mlflow_server import is_elsewhere, mlflow_database, mlflow_server
    from tasks.own_address import leave_out_own
    from tasks.ports import chosen_port, page
    from tasks.prefect_server import api_url, prefect_database, prefect_server
    from tasks.servers import Servers, claimed
    from tasks.supervisor import Supervisor

    git.require_workspace()
    signal.signal(signal.SIGTERM, _end_well)
    with claimed() as publish:
        own = {"PREFECT_API_URL": api_url(prefect_port), "MLFLOW_TRACKING_URI": page(mlflow_port)}
        leave_out_own(own, "--prefect-port and --mlflow-port")
        _require_no_server()
        prefect_store = prefect_database(prefect_url, "--prefect-database")
        mlflow_store = mlflow_database(mlflow_url, "--mlflow-database")
        require_usable(prefect_store, mlflow_store)
        _warn_of_passwords(prefect_url=prefect_store, mlflow_url=mlflow_store)
        for name in (*PREFECT_DATABASE, MLFLOW_DATABASE):
            os.environ.pop(name, None)  # each server gets its own, and nobody else any
        prefect_port = chosen_port(prefect_port, "Prefect", "--prefect-port")
        mlflow_port = chosen_port(mlflow_port, "MLflow", "--mlflow-port")
        found = Servers(os.getpid(), page(prefect_port), page(mlflow_port), is_elsewhere(mlflow_store))
        with Supervisor(say, LOGS) as supervisor:
            supervisor.start(prefect_server(prefect_port, prefect_store), mlflow_server(mlflow_port, mlflow_store))
            publish(found)
            if not no_serve:
                supervisor.start(_serve(found))
            _show(found, is_serving=not no_serve, as_json=as_json)
            supervisor.watch()


def _serve(found: Servers) -> Service:
    """`amopo serve` on these servers; the run that it may be at work on ends before it does."""
    from tasks.process import GRACE
    from tasks.service import Service

    return Service(
        name="serve",
        command=[sys.executable, "-m", "flows.cli", "serve"],
        environment=found.environment,
        ready_line="serving",
        shown=True,
        grace=2 * GRACE,
    )


def _show(found: Servers, *, is_serving: bool, as_json: bool) -> None:
    if as_json:
        print_json(found.as_json() | {"serving": is_serving})
        return
    exports = "\n".join(f"  export {name}={value}" for name, value in found.environment.items())
    click.echo(
        f"\nPrefect   {found.prefect}   flow runs, their logs and reports, schedules"
        f"\nMLflow    {found.mlflow}   runs, pictures, versions"
        f"\nOutput    {LOGS}"
        f"\n\nThe amopo commands in this folder find both by themselves; for other programs:\n{exports}"
        "\n\nCtrl-C stops everything."
    )


def _warn_of_passwords(**stores: Database) -> None:
    context = click.get_current_context()
    for option, store in stores.items():
        if store.secrets and context.get_parameter_source(option) == ParameterSource.COMMANDLINE:
            say(f"warning: the password of {store.where} can be read in the list of processes; use the environment")


def _require_no_server() -> None:
    from tasks.address import shown

    if url := os.environ.get("PREFECT_API_URL"):
        raise UserError(f"PREFECT_API_URL names a server already, {shown(url)}; unset it to start one here")


def say(line: str) -> None:
    """A line of progress."""
    click.echo(line, err=True)


def _end_well(_number: int, _frame: object) -> NoReturn:
    """SIGTERM is how a server is asked to end: nothing went wrong."""
    sys.exit(0)
