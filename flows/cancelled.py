"""A run that somebody cancelled in Prefect, said in one message."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
from prefect.exceptions import CancelledRun

EXIT_CANCELLED = 128 + signal.SIGTERM
"""What SIGTERM ends a command with."""


@contextmanager
def ending_when_cancelled() -> Iterator[None]:
    """Ends the command with 143 where its flow's run was cancelled; the block runs the flow."""
    try:
        yield
    except CancelledRun:
        click.echo("cancelled in Prefect; the same command goes on from what is done", err=True)
        sys.exit(EXIT_CANCELLED)
