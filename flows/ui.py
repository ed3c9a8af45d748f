"""`amopo ui`: MLflow's pages alone, for a look."""

from __future__ import annotations

import os

import click

from amopo_core.errors import UserError
from flows.output import json_option, print_json


@click.command()
@click.option("--port", default=5000, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@json_option
def ui(port: int, as_json: bool) -> None:
    """Open MLflow's pages on this machine until Ctrl-C; `amopo up` has Prefect's too.

    It shows the database of MLFLOW_BACKEND_STORE_URI, as `amopo up` does; without, mlflow.db.

    Example: amopo ui --port 5001
    """
    from flows.up import LOGS, MLFLOW_DATABASE, say
    from tasks import git
    from tasks.mlflow_server import mlflow_database, mlflow_server
    from tasks.own_address import is_left_behind, leave_out_own
    from tasks.ports import chosen_port, page
    from tasks.supervisor import Supervisor

    git.require_workspace()
    url = os.environ.get(MLFLOW_DATABASE)
    if is_left_behind() and not url:
        raise UserError(
            f"`amopo up` kept this folder's runs in a database of their own; name it as {MLFLOW_DATABASE}, or start"
            " `amopo up` again: without a database it goes back to mlflow.db"
        )
    leave_out_own({"MLFLOW_TRACKING_URI": page(port)}, "--port")
    store = mlflow_database(url, MLFLOW_DATABASE)
    port = chosen_port(port, "MLflow", "--port")
    with Supervisor(say, LOGS) as supervisor:
        supervisor.start(mlflow_server(port, store))
        if as_json:
            print_json({"mlflow": page(port)})
        else:
            click.echo(f"MLflow:  {page(port)}  (Ctrl-C ends it)")
        supervisor.watch()
