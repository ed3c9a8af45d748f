"""`amopo serve` and `amopo trigger`: retrainings by the clock, by new feedback and by an event, until told to end."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from amopo_core.errors import UserError
from flows.output import json_option, print_json
from tasks.errors import OutsideError
from tasks.turn import own_turn


@click.command()
@json_option
def serve(as_json: bool) -> None:
    """Start retrainings as operation.yaml says, one at a time, until Ctrl-C or SIGTERM. Needs a Prefect server.

    Says `serving: ...` once it is ready. Ended, it stops a retraining at work as Ctrl-C does: the next one goes on
    from its last checkpoint.

    Example: amopo serve
    """
    import asyncio

    from flows.console import show_own_lines
    from flows.prefect_away import reaching_prefect
    from tasks import git
    from tasks.notification import useless_addresses
    from tasks.operation import read_operation
    from tasks.process import wait_for_descendants
    from tasks.serving import SERVING, Service, alive_until

    git.require_workspace()
    operation, url = read_operation(), _server()
    show_own_lines()
    for line in useless_addresses():
        _say(line)
    last_alive = alive_until()
    with own_turn(place=SERVING, who="amopo serve"):
        from flows.scheduled import scheduled

        service = Service(scheduled, operation, _say)

        def ready() -> None:
            what = {"deployment": f"{scheduled.name}/{service.name}", "server": url, "starts": service.starts}
            if as_json:
                print_json(what)
            else:
                click.echo(f"serving: {what['deployment']} at {url}, {'; '.join(service.starts)}")

        try:
            with reaching_prefect():
                asyncio.run(service.run(ready, last_alive))
        finally:
            wait_for_descendants()
    _say("ended")


@click.command()
@click.option("--reason", default="amopo trigger", show_default=True, help="What the log of the run will say.")
@json_option
def trigger(reason: str, as_json: bool) -> None:
    """Ask `amopo serve` for a retraining now, with the event that other programs send too.

    Example: amopo trigger --reason "the new raters are done"
    """
    import asyncio

    from flows.prefect_away import reaching_prefect
    from tasks import git
    from tasks.event import emit

    git.require_workspace()
    _server()
    with reaching_prefect():
        event = asyncio.run(emit(reason))
    if as_json:
        print_json(event)
    else:
        click.echo(f"sent the event {event['event']}, id {event['id']}")


def _server() -> str:
    """The API's URL of the Prefect server that is configured, as it may be shown.

    Raises:
        UserError: none is.
        OutsideError: it does not answer.
    """
    import httpx
    from prefect.settings import PREFECT_API_URL

    from tasks.address import quoted, shown

    url = PREFECT_API_URL.value()
    mend = "start one with `amopo up`, or with `prefect server start`"
    if not url:
        raise UserError(
            f"no Prefect server is configured; {mend}, and name it as servers.prefect_api_url in operation.yaml or as"
            " PREFECT_API_URL (http://127.0.0.1:4200/api)"
        )
    try:
        httpx.get(f"{url}/health", timeout=10).raise_for_status()
    except httpx.HTTPError as error:
        raise OutsideError(f"no Prefect server answers at {shown(url)} ({quoted(error, url, 300)}); {mend}") from None
    return shown(url)


def _say(line: Any) -> None:
    click.echo(f"{datetime.now(UTC):%H:%M:%S}  {line}", err=True)
