"""Several services as one: started together, started again when one dies, and stopped together."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from tasks.errors import OutsideError
from tasks.service import Running, Service

START_LIMIT = 300.0
"""Time that a service has to become ready: a large database may be migrated in it [seconds]."""
RESTARTS, WITHIN = 5, 600.0
"""How often a service is started again, and within which time [seconds]; beyond it everything stops."""
_LOOK_EVERY = 0.2


class Supervisor:
    """Services that live as long as the `with` block does.

    Args:
        say: gets a line about each thing that happens, and the lines of services that are shown.
        logs: folder that gets each service's output as NAME.log.
    """

    def __init__(self, say: Callable[[str], None], logs: Path) -> None:
        self._say, self._logs = say, logs
        self._running: dict[str, Running] = {}
        self._deaths: dict[str, deque[float]] = defaultdict(deque)

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop all, the last started first; a second Ctrl-C ends by force what is being waited for."""
        with ExitStack() as stack:
            for running in self._running.values():
                stack.callback(self._stop, running)

    def start(self, *services: Service) -> None:
        """Start the services beside each other and wait until all are ready.

        Raises:
            OutsideError: one of them is not; the message has its last lines.
        """
        for service in services:
            self._say(f"starting {service.name} ...")
            self._launch(service)
        for service in services:
            self._running[service.name].wait_until_ready(START_LIMIT)
            self._say(f"{service.name} is ready")

    def watch(self) -> NoReturn:
        """Start again whatever dies, until a signal ends this.

        Raises:
            OutsideError: a service died too often.
        """
        while True:
            for running in list(self._running.values()):
                if running.ended:
                    self._restart(running)
            time.sleep(_LOOK_EVERY)

    def _restart(self, dead: Running) -> None:
        service, said = dead.service, f"{dead.how_it_ended()}{dead.last_lines()}"
        dead.stop()  # what it had started may hold its port
        deaths = self._deaths[service.name]
        deaths.append(time.monotonic())
        while deaths[0] < deaths[-1] - WITHIN:
            deaths.popleft()
        if len(deaths) > RESTARTS:
            raise OutsideError(
                f"{said}\n{service.name} died {len(deaths)} times within {WITHIN / 60:g} minutes: everything stops;"
                f" its whole output is in {self._log(service)}"
            )
        self._say(f"{said}\nstarting {service.name} again ({len(deaths)} of {RESTARTS}) ...")
        time.sleep(2.0 ** (len(deaths) - 1) - 1)  # 0, 1, 3, 7, 15 s: whatever it needs may be coming back
        self._launch(service)
        try:
            self._running[service.name].wait_until_ready(START_LIMIT)
        except OutsideError as error:
            if not self._running[service.name].ended:
                raise
            self._say(str(error))  # another death, which is counted at the next look
        else:
            self._say(f"{service.name} is ready")

    def _launch(self, service: Service) -> None:
        self._running[service.name] = Running(service, self._say, self._log(service))

    def _log(self, service: Service) -> Path:
        return self._logs / f"{service.name.lower()}.log"

    def _stop(self, running: Running) -> None:
        if not running.ended:
            self._say(f"stopping {running.service.name} ...")
        running.stop()
