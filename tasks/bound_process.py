"""A command that ends with its parent, however that ends.   Run as: python -m tasks.bound_process PARENT COMMAND..."""

import os
import sys

from amopo_core.stages.command import die_with_parent


def main() -> None:
    """Become the command; PARENT is the process that asked for it, which may be gone by now."""
    die_with_parent()  # the kernel remembers it across exec
    if os.getppid() == int(sys.argv[1]):
        os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
