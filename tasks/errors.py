"""The one exception for what fails outside this program."""


class OutsideError(RuntimeError):
    """A stage's process, DVC, git or MLflow failed, and not by a mistake in what the user gave.

    The message says what failed and what to do; command lines print it without a traceback and exit with 1.
    """
