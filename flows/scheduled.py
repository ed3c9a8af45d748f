"""The retraining as a Prefect server starts it: by the clock, by new feedback, by an event; one at a time, in turn."""

from __future__ import annotations

import signal
from datetime import UTC, datetime

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Completed

from amopo_core.errors import UserError
from tasks.errors import OutsideError
from tasks.last_retraining import SKIPPED, LastRetraining, last_retraining
from tasks.notification import tell_failure
from tasks.operation import read_operation
from tasks.turn import Taken, own_turn


@flow(name="retrain", on_failure=[tell_failure], on_crashed=[tell_failure])
def scheduled(reason: str = "somebody asked Prefect for it") -> State[None]:
    """What `amopo retrain` does. A start that waited while another took everything in is skipped.

    Runs in a process of its own, which a runner or a worker starts in the project's folder.
    """
    _settle_in()
    log = get_run_logger()
    log.info("started because of %s", reason[:1000])
    try:
        overlap = read_operation().overlap
        if not _stands_for_this(last_retraining()):
            with own_turn(wait=log.info if overlap == "wait" else None):
                if not _stands_for_this(last_retraining()):
                    return Completed(message=_retrained())
    except Taken as error:
        return _skipped(f"dropped: {error}")
    except (UserError, OutsideError) as error:
        log.error("error: %s", error)
        raise
    except TerminationSignal:
        # the kernel says once for each thread of a killed service that it has gone: a second time would cut off the
        # notifications of the first
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
    before = last_retraining()
    assert before is not None
    return _skipped(f"the retraining that began at {before.moment} took in what this one would")


def _skipped(why: str) -> State[None]:
    """The end of a start that came to nothing, said in the log as well."""
    get_run_logger().info("skipped: %s", why)
    return Completed(name=SKIPPED, message=why)


def _settle_in() -> None:
    """What the command line does at its start, for a process that a runner started; and it ends with that."""
    from amopo_core.collector import look_less_often
    from amopo_core.stages.command import die_with_parent
    from flows.console import show_own_lines
    from flows.environment import set_defaults

    die_with_parent()
    look_less_often()
    set_defaults()
    show_own_lines()


def _stands_for_this(other: LastRetraining | None) -> bool:
    """Whether another retraining began after this one was due, and came to its end.

    One that began in the future was noted before the clock was set back: it says nothing about now.
    """
    due, now = flow_run.scheduled_start_time.timestamp(), datetime.now(UTC).timestamp()
    return other is not None and other.ended and due < other.began <= now


def _retrained() -> str:
    """What came of the retraining, in a sentence."""
    from amopo_core.params_file import read_params
    from amopo_core.preflight import check_inputs
    from flows.retrain import retrain

    check_inputs(read_params())
    outcome = retrain.fn()
    if outcome.verdict is None:
        return f"nothing new: {outcome.version.uri} is up to date"
    return f"{outcome.version.uri}, {outcome.standing}"
