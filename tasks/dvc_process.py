"""DVC's command line in a process that ends with its parent.   Run as: python -m tasks.dvc_process ARGUMENTS."""

import sys

from amopo_core.collector import look_less_often
from amopo_core.stages.command import die_with_parent


def main() -> int:
    """DVC's exit status for this process's arguments."""
    die_with_parent()
    look_less_often()
    from dvc.cli import main as dvc

    return int(dvc())


if __name__ == "__main__":
    sys.exit(main())
