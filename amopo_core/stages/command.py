"""What every stage's command line shares: its paths, its exit codes, its end when the parent ends."""

from __future__ import annotations

import argparse
import ctypes
import errno
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from amopo_core.collector import look_less_often
from amopo_core.errors import UserError

EXIT_FAILED, EXIT_USER_ERROR, EXIT_INTERRUPTED = 1, 2, 130
MESSAGE = "error: "
"""What a stage's last message begins with: whoever runs the stage finds it among the lines of its progress."""


def parse_paths(description: str, names: Sequence[str], argv: Sequence[str] | None) -> argparse.Namespace:
    """The paths a stage reads and writes, one required option each; numbers come from params.yaml alone."""
    return paths_parser(description, names).parse_args(argv)


def paths_parser(description: str, names: Sequence[str]) -> argparse.ArgumentParser:
    """A parser of the paths, for a stage that has an option more."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in names:
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="PATH")
    return parser


class Interrupted(KeyboardInterrupt):
    """Ctrl-C. Of a plain KeyboardInterrupt that leaves an `exec`, Python dies at its end, caught or not."""


def exit_with(main: Callable[[], None]) -> None:
    """Run a stage and end the process: 0, 1 on a full disk, 2 for a user to mend, 130 on Ctrl-C.

    What takes time to import is imported within `main`: Ctrl-C in the meantime ends like any other.
    """
    die_with_parent()
    look_less_often()
    _show_progress()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background jobs ignore it
        signal.signal(signal.SIGINT, _interrupt)
    try:
        main()
    except UserError as error:
        sys.exit(_said(str(error), EXIT_USER_ERROR))
    except KeyboardInterrupt:
        sys.exit(_said("interrupted", EXIT_INTERRUPTED))
    except Exception as error:
        if (failure := disk_failure(error)) is None:
            raise
        sys.exit(_said(*failure))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted


def _show_progress() -> None:
    """Send what the library says of its progress to standard error; other libraries keep their warnings only."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("amopo_core").setLevel(logging.INFO)


def disk_failure(error: BaseException) -> tuple[str, int] | None:
    """The message and the exit status where files could not be written or read; None for any other failure."""
    if is_full_disk(error):
        return f"the disk is full: {error}; free some space and start again", EXIT_FAILED
    if _says(error, _FORBIDDEN):
        return f"{error}; make it readable and writable (chmod u+rw) and start again", EXIT_USER_ERROR
    if isinstance(error, OSError) and error.errno in _IN_THE_WAY:
        return f"{error}; {_what_is_in_the_way(error)}: move it away", EXIT_USER_ERROR
    return None


def _what_is_in_the_way(error: OSError) -> str:
    if error.filename is None:
        return "a file lies where a folder must be, or the reverse"
    path = Path(os.fsdecode(error.filename))
    found = next((each for each in (path, *path.parents) if each.exists()), path)
    came, expected = ("folder", "file") if found.is_dir() else ("file", "folder")
    return f"{found} is a {came} where a {expected} must be"


def is_full_disk(error: BaseException) -> bool:
    """Whether a failure means that no more can be written; torch's archive writer says only that a write fell short."""
    return _says(error, _FULL) or "inline_container.cc" in str(error)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


def _says(error: BaseException, numbers: Sequence[int]) -> bool:
    """Whether the system said one of the numbers; writers in Rust and C++ keep it in the text of their error only."""
    if isinstance(error, OSError) and error.errno in numbers:
        return True
    return any(os.strerror(number) in str(error) or f"os error {number}" in str(error) for number in numbers)


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends, which `kill -9` of the parent does not (Linux only)."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that it can be waited for (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(36, 1)  # 36: PR_SET_CHILD_SUBREAPER


def _said(message: str, status: int) -> int:
    sys.stderr.write(f"{MESSAGE}{message.rstrip()}\n")
    return status
