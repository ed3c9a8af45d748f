"""`amopo ui`: MLflow's pages alone, for a look."""

from __future__ import annotations

import click

from flows.output import json_option, print_json


@click.command()
@click.option("--port", default=5000, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@json_option
def ui(port: int, as_json: bool) -> None:
    """Open MLflow's pages on this machine until Ctrl-C; `amopo up` has Prefect's too.

    Example: amopo ui --port 5001
    """
    from flows.up import LOGS, say
    from tasks import git
    from tasks.mlflow_server import mlflow_database, mlflow_server
    from tasks.ports import chosen_port, page
    from tasks.supervisor import Supervisor

    git.require_workspace()
    store = mlflow_database(None, "")
    port = chosen_port(port, "MLflow", "--port")
    with Supervisor(say, LOGS) as supervisor:
        supervisor.start(mlflow_server(port, store))
        if as_json:
            print_json({"mlflow": page(port)})
        else:
            click.echo(f"MLflow:  {page(port)}  (Ctrl-C ends it)")
        supervisor.watch()
