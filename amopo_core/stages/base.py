"""Stage `base`: the starting policy.

Example: python -m amopo_core.stages.base --base models/base --report reports/base.json
"""

from __future__ import annotations

from collections.abc import Sequence

from amopo_core.atomic import write_json
from amopo_core.stages.command import exit_with, parse_paths


def main(argv: Sequence[str] | None = None) -> None:
    """Make or copy the starting policy."""
    from amopo_core.base_policy import make_base_policy
    from amopo_core.params_file import read_params

    paths = parse_paths(__doc__ or "", ["base", "report"], argv)
    params = read_params()
    write_json(paths.report, make_base_policy(params, paths.base))


if __name__ == "__main__":
    exit_with(main)
