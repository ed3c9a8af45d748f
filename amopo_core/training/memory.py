"""Memory that ran out: what to lower, and whether the kernel ended a process for it."""

from __future__ import annotations

from pathlib import Path

from amopo_core.config import Train

VMSTAT = Path("/proc/vmstat")


def what_to_lower(train: Train, *, alone: bool = False) -> str:
    """What takes less memory, what changes the result least first; `alone`: a micro-batch of one pair was too large."""
    ways = {
        f"lower train.micro_batch_tokens (now {train.micro_batch_tokens})": not alone,
        "set train.gradient_checkpointing: true": not train.gradient_checkpointing,
        f"lower train.max_length (now {train.max_length})": True,
        f"set train.precision: bfloat16 (now {train.precision})": train.precision != "bfloat16",
        "train low-rank adapters (train.adapter) in place of all weights": train.adapter is None,
    }
    note = "A pair alone is the smallest micro-batch. " if alone else ""
    return f"{note}To mend it, one or more of: {'; '.join(way for way, helps in ways.items() if helps)}"


def ended_without_a_word(status: int, train: Train, *, killed: bool) -> str:
    """What is known of a rank that left no message.

    Args:
        status: of its launcher.
        train: the section of the parameters.
        killed: whether the kernel ended a process for want of memory meanwhile.
    """
    if killed:
        return f"the kernel ended a rank because the machine's memory was full. {what_to_lower(train)}"
    return f"a rank ended without a word (exit status {status}); its last lines are above"


def oom_kills() -> int:
    """How many processes the kernel has ended for want of memory, where it says so; 0 elsewhere."""
    return sum(map(_oom_kills, (VMSTAT, _control_group() / "memory.events")))


def _oom_kills(path: Path) -> int:
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return 0
    return sum(int(words[1]) for words in lines if words[0] == "oom_kill")


def _control_group() -> Path:
    """The folder of this process's limits, where the unified hierarchy of control groups is in use."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return root
    return next((root / line[3:].lstrip("/") for line in lines if line.startswith("0::")), root)
