"""The one exception for what a user can mend."""

from pathlib import Path


class UserError(ValueError):
    """A mistake in what the user gave: the message says what came, what was expected and how to mend it.

    Command lines print the message without a traceback and exit with 2.
    """


def located(path: Path, line: int, message: str) -> UserError:
    """A `UserError` that begins with `file:line`, the form editors can jump to."""
    return UserError(f"{path}:{line}: {message}")
