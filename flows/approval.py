"""Waiting for a person: the end of a retraining whose version needs approval, and `amopo approve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flows.output import json_option, print_json, reason_option, say_note
from tasks.errors import OutsideError

if TYPE_CHECKING:
    from amopo_core.promotion import Verdict
    from tasks.registry import Version


@click.command()
@click.argument("version", required=False)
@click.option("--reject", is_flag=True, help="Answer no: the champion stays.")
@reason_option
@json_option
def approve(version: str | None, reject: bool, reason: str, as_json: bool) -> None:
    """Let a version that waits for a person become champion; without VERSION, the only one that waits.

    VERSION is a number, or challenger. With promotion.approval: human, a version with a verdict of yes waits. A flow
    run that pauses for it ends as well.

    Example: amopo approve 4 --reason "read twenty answers, all fine"
    """
    from tasks import approval, git
    from tasks.notification import notify
    from tasks.person import person
    from tasks.succession import require_reason

    git.require_workspace()
    require_reason(reason)
    found = approval.require_waiting(version)
    note = (approval.reject if reject else approval.approve)(found, why=reason, by=person())
    became = "rejected; the champion stays" if reject else "champion now"
    notify("verdict" if reject else "promotion", f"{found.uri} is {became}", reason)
    if as_json:
        print_json({"version": found.number, "approved": not reject, "note": note})
        return
    say_note(note)
    click.echo(f"{found.uri} is {became}")


def wait_for_approval(version: Version, verdict: Verdict) -> str:
    """The version's verdict after a person has answered on Prefect's page, or after the time for that has passed.

    On a temporary server nobody can: the version waits, and this run does not.
    """
    from prefect import get_run_logger
    from prefect.runtime import flow_run

    from amopo_core.errors import UserError
    from flows.server import is_lasting
    from tasks import approval, pause
    from tasks.notification import notify
    from tasks.standing import PROMOTED
    from tasks.turn import give_back

    log, command = get_run_logger(), f"amopo approve {version.number} --reason TEXT"
    if not is_lasting():
        log.info("%s waits for approval: %s", version.uri, command)
        return approval.standing(version)
    give_back()  # others may work here meanwhile
    try:
        hours = pause.limit()
        approval.wait_on(version, str(flow_run.id))
        where = f"answer at {flow_run.ui_url}, or {command}"
        log.info("%s waits for approval, for %g h in this run: %s", version.uri, hours, where)
        answer = pause.ask(approval.question(version, verdict.reasons))
        standing = approval.take(version, answer)
        if answer.decision != "later":  # `amopo approve` tells of its own answers
            said = f"{version.uri}: {standing}", f"{answer.reason} ({answer.name})"
            notify("promotion" if standing == PROMOTED else "verdict", *said)
        return standing
    except (UserError, OutsideError) as error:
        log.warning("the approval of %s had no effect: %s", version.uri, error)
        return approval.standing(version)
