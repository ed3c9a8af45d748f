"""Prefect's runner for this workspace: takes up what is due, watches for feedback, ends without leaving a process."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from prefect import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.flows import Flow
from prefect.runner import Runner
from prefect.settings import PREFECT_API_URL

from amopo_core.errors import UserError
from amopo_core.params_file import read_params
from amopo_core.stages.command import adopt_orphans
from tasks import deployment
from tasks.address import quoted
from tasks.last_retraining import last_retraining
from tasks.new_feedback import Lookout, Waiting
from tasks.operation import Operation
from tasks.watcher import Watcher

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

SERVING = Path(".amopo/serving")
"""Held by the only `amopo serve` there may be in a workspace; written to as long as that lives."""
_TICK = 5.0
"""Seconds between two looks at what is due, and between two attempts to reach a server that is away."""
_OUTAGE = (httpx.HTTPError, PrefectHTTPStatusError, RuntimeError, ExceptionGroup)
"""What Prefect's client and runner raise where a server has gone."""
_TAKEN_IN = "a later start takes in what this one would have"


def alive_until() -> datetime | None:
    """When this workspace was last served; None where it never was."""
    return datetime.fromtimestamp(SERVING.stat().st_mtime, UTC) if SERVING.exists() else None


def _innermost(error: BaseException) -> BaseException:
    """What task groups have wrapped."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _Runner(Runner):
    """Prefect's runner, of which the service decides when it ends: its own way exits half-way through."""

    asked_to_end: Callable[[], None]

    def handle_sigterm(self, *_args: Any, **_kwargs: Any) -> None:
        """What the runner installs for SIGTERM when it starts."""
        self.asked_to_end()


class Service:
    """Serves one workspace."""

    def __init__(self, flow: Flow[..., Any], operation: Operation, say: Callable[[str], None]) -> None:
        """The service of a flow with one parameter, `reason`; `say` gets a line for whoever looks on."""
        self.name = deployment.deployment_name()
        self._flow, self._operation, self._say = flow, operation, say
        self._watcher = Watcher(operation.watch, time.time())
        self._lookout = Lookout()
        self._problems: tuple[str, ...] = ()
        self._is_away = False
        self._end = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def starts(self) -> list[str]:
        """What starts a retraining, in words."""
        watch = self._operation.watch
        rows = [f"{watch.min_rows} new rows"] if watch.min_rows is not None else []
        hours = [f"any after {watch.max_hours:g} h"] if watch.max_hours is not None else []
        return [*map(str, self._operation.schedules), *rows, *hours, f"the event {deployment.EVENT}"]

    async def run(self, ready: Callable[[], None], last_alive: datetime | None) -> None:
        """Serve until SIGTERM or Ctrl-C; a Prefect server that goes away is waited for.

        Args:
            ready: called once, when everything is registered.
            last_alive: when this workspace was last served: schedules that were missed since become one start.
        """
        self._loop = asyncio.get_running_loop()
        # the runner's own loose ends, where its server goes away: a line, not a traceback
        self._loop.set_exception_handler(lambda _loop, context: self._say(f"Prefect: {context['message']:.160}"))
        warnings.filterwarnings("ignore", "coroutine 'Runner")
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._end.set)
        is_ready = False

        def now_ready() -> None:
            nonlocal is_ready
            self._say("serving again") if is_ready else ready()
            is_ready, self._is_away = True, False

        while not self._end.is_set():
            try:
                await self._serve(now_ready, last_alive)
            except _OUTAGE as error:
                if not is_ready:
                    raise
                if not self._is_away:
                    said = quoted(_innermost(error), PREFECT_API_URL.value() or "", 300)
                    self._say(f"Prefect's server does not answer ({said}); trying until it does")
                self._is_away = True
                await self._pause()
                last_alive = alive_until()

    async def _serve(self, ready: Callable[[], None], last_alive: datetime | None) -> None:
        runner = _Runner(name="amopo", limit=1, pause_on_shutdown=False)
        runner.asked_to_end = self._asked_to_end
        async with get_client() as client:
            deployment_id = await runner.aadd_deployment(deployment.deployment(self._flow, self._operation))
            await self._catch_up(client, deployment_id, last_alive)
            running = asyncio.create_task(runner.start())
            over = asyncio.Event()
            watching = asyncio.create_task(self._watch(client, deployment_id, over))
            ending = asyncio.create_task(self._end.wait())
            ready()
            with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):  # the runner prints tracebacks
                await asyncio.wait({running, watching, ending}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            over.set()  # a cancellation can get lost in `wait_for`
            adopt_orphans()  # from here on: what a run leaves when it is ended by force is waited for
            if self._end.is_set():
                self._say("ending; a retraining at work saves its state first")
                await self._pause_schedules(client, deployment_id)
            if runner.started:
                await runner.astop()
            else:
                running.cancel()
            for ended in await asyncio.gather(running, watching, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended

    async def _pause_schedules(self, client: PrefectClient, deployment_id: UUID) -> None:
        try:
            await client.pause_deployment(deployment_id)
        except _OUTAGE:
            self._say("the schedules could not be paused: Prefect's server has gone")

    async def _catch_up(self, client: PrefectClient, deployment_id: UUID, last_alive: datetime | None) -> None:
        """One start for all that were missed while nobody served, and for a retraining that was cut off."""
        await deployment.close_left_behind(client, deployment_id)
        last = last_retraining()
        if due := await deployment.due_runs(client, deployment_id):
            await deployment.skip(client, due[1:], _TAKEN_IN)
            self._say(f"missed while nobody served: {len(due)}; one retraining makes up for it")
        elif (last is None or not last.ended) and await deployment.was_cut_off(client, deployment_id):
            self._say("the last retraining was cut off; going on with it")
            await deployment.ask_for_run(client, deployment_id, "a retraining that was cut off")
        elif last_alive and (count := await self._missed(last_alive)):
            self._say(f"missed while nobody served: {count}; one retraining makes up for it")
            await deployment.ask_for_run(client, deployment_id, f"{count} starts missed since {last_alive:%F %T} UTC")

    async def _missed(self, since: datetime) -> int:
        return await deployment.missed(self._operation.schedules, since, datetime.now(UTC))

    async def _watch(self, client: PrefectClient, deployment_id: UUID, over: asyncio.Event) -> None:
        poll = self._operation.watch.poll_seconds
        next_look = time.monotonic()
        while not over.is_set() and not self._end.is_set():
            os.utime(SERVING)
            try:
                await self._tidy(client, deployment_id)
                if self._operation.watch.wanted and time.monotonic() >= next_look:
                    next_look = time.monotonic() + poll
                    await self._look(client, deployment_id)
            except _OUTAGE:
                pass  # the runner says so, once it has tried often enough
            await self._pause(min(poll, _TICK))

    async def _tidy(self, client: PrefectClient, deployment_id: UUID) -> None:
        """What is due while a run is at work: dropped, or all of it the latest one."""
        due = await deployment.due_runs(client, deployment_id)
        if not due or not (at_work := await deployment.runs_at_work(client, deployment_id)):
            return
        if self._operation.overlap == "drop":
            await deployment.skip(client, due, f"dropped: the retraining {at_work[0].name} was at work")
        else:
            await deployment.skip(client, due[1:], _TAKEN_IN)

    async def _look(self, client: PrefectClient, deployment_id: UUID) -> None:
        """Ask for a run where enough has come together. While one is at work or due, what waits goes on waiting."""
        waiting = await asyncio.to_thread(self._waiting)
        if waiting.problems != self._problems:
            self._problems = waiting.problems
            for problem in waiting.problems:
                self._say(problem)
        for find in (deployment.due_runs, deployment.runs_at_work):
            if await find(client, deployment_id):
                return
        last = last_retraining()
        began, failed = (last.began, last.failed) if last else (None, False)
        if reason := self._watcher.reason(waiting, time.time(), began, last_failed=failed):
            self._say(f"starting a retraining: {reason}")
            await deployment.ask_for_run(client, deployment_id, reason)

    def _waiting(self) -> Waiting:
        try:
            return self._lookout.look(read_params(), ask_sources=self._operation.watch.sources)
        except UserError as error:
            return Waiting(problems=(str(error),))

    def _asked_to_end(self) -> None:
        """Called in a signal handler, between two steps of the loop, which may be asleep."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._end.set)

    async def _pause(self, seconds: float = _TICK) -> None:
        """Sleep, but not beyond the end."""
        try:
            await asyncio.wait_for(self._end.wait(), seconds)
        except TimeoutError:
            return
