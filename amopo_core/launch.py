"""The accelerate launch file: how many processes train, and on what. It changes no result."""

from __future__ import annotations

import os
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from amopo_core.errors import UserError

DEFAULT = Path("configs/accelerate/cpu.yaml")


def launch_file() -> Path:
    """The file that AMOPO_LAUNCH names; without, one CPU process."""
    return Path(os.environ.get("AMOPO_LAUNCH", DEFAULT))


def ranks_of(launch: Path) -> int:
    """How many processes a launch file starts, over all machines."""
    try:
        ranks = YAML(typ="safe").load(launch)["num_processes"]
    except FileNotFoundError:
        raise UserError(f"AMOPO_LAUNCH: {launch} is not here; configs/accelerate has one a hardware") from None
    except (YAMLError, KeyError, TypeError):
        raise UserError(f"AMOPO_LAUNCH: {launch} is no accelerate launch file: it names no num_processes") from None
    return int(ranks)
