"""A run that somebody stopped, by Ctrl-C, by SIGTERM or in Prefect, said in one message."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
from prefect.exceptions import CancelledRun

from amopo_core.stages.command import EXIT_INTERRUPTED

EXIT_CANCELLED = 128 + signal.SIGTERM
"""What SIGTERM ends a command with, and a cancellation."""


@contextmanager
def ending_when_stopped() -> Iterator[None]:
    """Ends the command with 130 at Ctrl-C, with 143 at SIGTERM and where its flow's run was cancelled.

    The block runs the flow.
    """
    try:
        yield
    except KeyboardInterrupt:
        said, status = "interrupted", EXIT_INTERRUPTED
    except SystemExit as end:
        if end.code != EXIT_CANCELLED:
            raise
        said, status = "ended by SIGTERM", EXIT_CANCELLED
    except CancelledRun:
        said, status = "cancelled in Prefect", EXIT_CANCELLED
    else:
        return
    click.echo(f"{said}; the same command goes on from what is done", err=True)
    sys.exit(status)
