"""DVC's short commands: what is there, what is as it was, what is added."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from tasks.errors import OutsideError
from tasks.process import child_environment

DVC = (sys.executable, "-m", "tasks.dvc_process")
FEEDBACK = Path("data/feedback")
CHAMPION = Path("models/champion")
_UNSET = 251
"""Exit status of `dvc config` for an option that has no value."""


def run_dvc(
    *arguments: str, allowed: Container[int] = (0,), extra: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The ended command, run with `extra` in its environment.

    Raises:
        OutsideError: it ended with a status that is not allowed.
    """
    environment = child_environment() | dict(extra or {})
    done = subprocess.run([*DVC, *arguments], capture_output=True, text=True, env=environment, check=False)
    if done.returncode not in allowed:
        raise OutsideError(
            f"dvc {' '.join(arguments)} failed with exit status {done.returncode}\n{done.stderr.strip()}"
        )
    return done


def is_clean(*targets: str) -> bool:
    """Whether the targets, without any all stages and data folders, are as the lock file and the pointers say."""
    return run_dvc("status", "--quiet", *targets, allowed=(0, 1)).returncode == 0


def add(*folders: Path) -> None:
    """Put folders under DVC's care; what has not changed costs a look."""
    run_dvc("--wait-for-lock", "add", "--quiet", *map(str, folders))


def remove_outputs(paths: Iterable[str]) -> None:
    """Remove what stages wrote, so that DVC has to bring or make it."""
    for path in map(Path, paths):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def has_remote() -> bool:
    """Whether there is a default remote to send data to."""
    return bool(run_dvc("config", "core.remote", allowed=(0, _UNSET)).stdout.strip())
