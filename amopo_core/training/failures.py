"""What a user reads of a run that failed, and the status it ends with."""

from __future__ import annotations

import re
import traceback

import psutil
import torch

from amopo_core.config import Train
from amopo_core.errors import UserError
from amopo_core.stages.command import EXIT_FAILED, EXIT_USER_ERROR, disk_failure
from amopo_core.training.memory import what_to_lower
from amopo_core.training.non_finite import NotFinite
from amopo_core.training.progress import BatchSize, on_gpu
from amopo_core.training.stopping import EXIT_STOPPED, Stopped
from amopo_core.units import in_bytes

_NO_MEMORY = re.compile(
    r"can't allocate memory|Cannot allocate memory|out of memory|std::bad_alloc|_ALLOC_FAILED", re.IGNORECASE
)
_CONNECTION_LOST = ("gloo/transport", "Connection closed by peer", "Connection reset by peer")
_ASKED = re.compile(r"allocate ([\d.]+) ?(bytes|[KMGT]iB)")
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def described(error: Exception, train: Train, largest: BatchSize | None) -> tuple[str, int]:
    """The message and the exit status of a failure; the traceback of one that no user can mend is printed.

    Args:
        error: what ended the rank.
        train: the section of the parameters.
        largest: the largest micro-batch that the rank met; None where it met none.
    """
    if is_out_of_memory(error):
        return out_of_memory(error, train, largest), EXIT_FAILED
    if isinstance(error, UserError):
        return str(error), EXIT_USER_ERROR
    if isinstance(error, Stopped):
        return str(error), EXIT_STOPPED
    if isinstance(error, NotFinite):
        return str(error), EXIT_FAILED
    if failure := disk_failure(error):
        return failure
    traceback.print_exception(error)
    return f"the training failed: {type(error).__name__}: {error}; where is said above", EXIT_FAILED


def lost_another_rank(error: Exception) -> bool:
    """Whether a failure means no more than that another rank is gone."""
    said = str(error)
    return isinstance(error, torch.distributed.DistError) or any(words in said for words in _CONNECTION_LOST)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a failure, or what caused it, means that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, RuntimeError | OSError) and _NO_MEMORY.search(str(error)):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def out_of_memory(error: BaseException, train: Train, largest: BatchSize | None) -> str:
    """Where memory ran out, how much was asked for and free, and what to lower."""
    where = (
        f"the largest micro-batch so far has {_counted(largest.tokens, 'token')} of {_counted(largest.pairs, 'pair')},"
        f" its longest sequence {_counted(largest.longest, 'token')}"
        if largest
        else "no step had begun"
    )
    alone = largest is not None and largest.pairs == 1
    found = _ASKED.search(str(error))
    asked = f"{in_bytes(float(found[1]) * _UNITS[found[2]])} more were asked for, " if found else ""
    return f"out of memory: {asked}{in_bytes(_free())} are free; {where}. {what_to_lower(train, alone=alone)}"


def _free() -> int:
    if on_gpu():
        return torch.cuda.mem_get_info()[0]
    return int(psutil.virtual_memory().available)


def _counted(count: int, name: str) -> str:
    return f"{count:,} {name}" if count == 1 else f"{count:,} {name}s"
