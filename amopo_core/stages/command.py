"""What every stage's command line shares: its paths, its exit codes, its end when the parent ends."""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from amopo_core.errors import UserError

EXIT_FAILED, EXIT_USER_ERROR, EXIT_INTERRUPTED = 1, 2, 130


def parse_paths(description: str, names: Sequence[str], argv: Sequence[str] | None) -> argparse.Namespace:
    """The paths a stage reads and writes, one required option each; numbers come from params.yaml alone."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in names:
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="PATH")
    return parser.parse_args(argv)


def exit_with(main: Callable[[], None]) -> None:
    """Run a stage and end the process: 0, 2 with the message of a user's mistake, 1 on a full disk, 130 on Ctrl-C."""
    die_with_parent()
    try:
        main()
    except UserError as error:
        sys.exit(_said(str(error), EXIT_USER_ERROR))
    except KeyboardInterrupt:
        sys.exit(_said("interrupted", EXIT_INTERRUPTED))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        sys.exit(_said(f"{error.filename or 'output'}: {error.strerror}; free some space and start again", EXIT_FAILED))


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends, which `kill -9` of the parent does not (Linux only)."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def _said(message: str, status: int) -> int:
    sys.stderr.write(message.rstrip() + "\n")
    return status
