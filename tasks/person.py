"""Who is at the keyboard."""

from __future__ import annotations

import getpass
import subprocess


def person() -> str:
    """The name in git's configuration, else the login's, else `unknown`."""
    done = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, check=False)
    if name := done.stdout.strip():
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in some containers
        return "unknown"
