"""One rank of a training in a process of its own.

Run as: accelerate launch -m amopo_core.training.rank_process ARGUMENTS.
"""

import sys

from amopo_core.collector import look_less_often
from amopo_core.stages.command import die_with_parent


def main() -> int:
    """The rank's exit status; what it needs takes seconds to import."""
    die_with_parent()
    look_less_often()
    from amopo_core.training.rank import main as rank

    return rank()


if __name__ == "__main__":
    sys.exit(main())
