"""SIGTERM in a rank: all ranks save a checkpoint at the end of the step and end."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

EXIT_STOPPED = 128 + signal.SIGTERM
GRACE_SECONDS = 50.0
"""Time a rank has to save and end after SIGTERM; then it ends by force."""


class Stopped(Exception):
    """The run was asked to end, and its checkpoint is saved."""

    def __init__(self, step: int, steps: int) -> None:
        super().__init__(f"stopped at step {step} of {steps}, which is saved; the same command goes on from there")


class StopAndTime(TrainerCallback):
    """Makes checkpoints by the clock and at SIGTERM, in all ranks at the same step."""

    def __init__(self, checkpoint_minutes: float) -> None:
        self.stopping = False
        self._asked = False
        self._due = False
        self._seconds = checkpoint_minutes * 60
        self._saved = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """From here on SIGTERM is heard at the end of a step; before, it ends the rank at once."""
        self._saved = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._hear)
            _end_by_force_after_sigterm()

    def wishes(self) -> list[float]:
        """1 where this rank wants the end, and where it wants a checkpoint; 0 elsewhere."""
        return [float(self._asked), float(time.monotonic() - self._saved >= self._seconds)]

    def agree(self, stop: bool, due: bool) -> None:
        """Take what any rank wishes for; every rank is told the same in every step."""
        self.stopping, self._due = stop, due

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Ask for a checkpoint and for the end where the ranks agreed on it; the last step is always logged."""
        control.should_save |= self.stopping or self._due
        control.should_log |= state.global_step >= state.max_steps
        control.should_training_stop |= self.stopping
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Wait the whole time from this checkpoint on."""
        self._saved = time.monotonic()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._asked = True


def _end_by_force_after_sigterm() -> None:
    """Python's handlers do not run while a rank waits in a collective; a thread on the wake-up socket does."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        while signal.SIGTERM not in reader.recv(16):
            pass
        time.sleep(GRACE_SECONDS)
        os._exit(EXIT_STOPPED)

    threading.Thread(target=watch, daemon=True).start()
    _KEPT.append(writer)


_KEPT: list[socket.socket] = []
"""A socket that is collected is closed."""
