"""What a person sees while a flow works: the stages' own lines, and warnings; the engine's book-keeping stays away."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path


class OwnLines(logging.Filter):
    """Keeps what flows, tasks and stages say, and other libraries' warnings.

    Prefect's engine logs every failure with its traceback, twice; the command line says it once, without.
    """

    def __init__(self) -> None:
        super().__init__()
        import prefect

        self._engine = str(Path(prefect.__file__).parent)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown."""
        return not record.pathname.startswith(self._engine)


def show_own_lines() -> None:
    """Filter what Prefect's console handler shows; its server still gets everything.

    A reader who has gone ends no run: rich would end the process at the next line, where a run whose service was killed
    has still to say how it ended.
    """
    import prefect.main  # noqa: F401  # sets up the handlers

    # Prefect says on stderr what did not reach its server, without an end of line: the next message hung on to it
    logging.raiseExceptions = False
    # a failure with its traceback, beside the message that says it
    logging.getLogger("mlflow.store.db.utils").addFilter(lambda record: not record.exc_info)
    for handler in logging.getLogger().handlers:
        handler.addFilter(OwnLines())
        if (console := getattr(handler, "console", None)) is not None:
            console.on_broken_pipe = partial(setattr, console, "quiet", True)
