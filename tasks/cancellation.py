"""A flow run that somebody started by hand is cancelled in Prefect: it ends as it does under SIGTERM.

Prefect's runner and its workers do that for the runs that they start. Nobody does it for a command at a terminal: its
state would stay `Cancelling`, and it would work on.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import wraps
from threading import Event, Lock
from typing import ParamSpec, TypeVar, cast
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelled

from tasks.killed_runs import alive

P = ParamSpec("P")
T = TypeVar("T")
_POLL = 2.0
"""Time between two looks at the run's state [seconds]."""
MESSAGE = "Cancelled in Prefect; what is done is kept, and the next run goes on from there."


def ends_when_cancelled(work: Callable[P, T]) -> Callable[P, T]:
    """The body of a flow, which ends where somebody cancels its run; the run's state is `Cancelled` then.

    Whoever called the flow gets Prefect's CancelledRun. A run of a deployment is left to what started it.
    """

    @wraps(work)
    def watched(*args: P.args, **kwargs: P.kwargs) -> T:
        context = FlowRunContext.get()
        if context is None or context.flow_run is None or context.flow_run.deployment_id is not None:
            return work(*args, **kwargs)
        cancelled = Event()
        try:
            with alive(context.flow_run.id), _watching(context.flow_run.id, cancelled):
                return work(*args, **kwargs)
        except TerminationSignal:
            if cancelled.is_set():
                return cast(T, Cancelled(message=MESSAGE))  # a flow that returns a state has that state
            raise

    return watched


@contextmanager
def _watching(run: UUID, cancelled: Event) -> Iterator[None]:
    """Sends this process's main thread SIGTERM where the run is cancelled within the block."""
    over, at_the_end = Event(), Lock()
    main = threading.main_thread().ident
    assert main is not None

    def watch() -> None:
        once = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0})  # the next look is a try again
        with once, get_client(sync_client=True) as client:
            while not over.wait(_POLL):
                if _is_cancelling(client, run):
                    with at_the_end:
                        if not over.is_set():
                            get_run_logger().warning("cancelled in Prefect: saving what is done, and ending")
                            cancelled.set()
                            signal.pthread_kill(main, signal.SIGTERM)
                    return

    # the context holds where Prefect's server is and whose log this is
    threading.Thread(target=copy_context().run, args=(watch,), name="cancellation", daemon=True).start()
    try:
        yield
    finally:
        with at_the_end:
            over.set()


def _is_cancelling(client: SyncPrefectClient, run: UUID) -> bool:
    """False also where the server does not answer, or does so with anything else: that is no reason to end a run."""
    with suppress(Exception):
        state = client.read_flow_run(run).state
        return state is not None and state.is_cancelling()
    return False
