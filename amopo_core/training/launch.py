"""The accelerate launch file: how many processes train, and on what. It changes no result.

A file for several machines names their number; which of them this one is and where they meet, its environment says:
MACHINE_RANK (or Slurm's SLURM_NODEID), MASTER_ADDR, MASTER_PORT, and NUM_MACHINES (or SLURM_NNODES) for another number.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from amopo_core.errors import UserError

DEFAULT = Path("configs/accelerate/cpu.yaml")
KINDS = ("NO", "MULTI_CPU", "MULTI_GPU", "FSDP", "DEEPSPEED")
"""accelerate's kinds of training that this trains with."""
RANK_ENVIRONMENT = {
    "TORCH_CPP_LOG_LEVEL": "ERROR",  # its warnings are for those who write the training
}
"""What the ranks' processes are started with, beside what is set already; it changes no result."""
SHARDED = ("FSDP", "DEEPSPEED")
"""Kinds of training in which no process holds all weights."""


@dataclass(frozen=True)
class Launch:
    """What a launch file asks for, with what the environment says of this machine."""

    path: Path
    kind: str
    """accelerate's `distributed_type`."""
    on_cpu: bool
    """accelerate's `use_cpu`."""
    machines: int
    """How many machines train together."""
    per_machine: int
    """Processes on each of them."""

    @property
    def ranks(self) -> int:
        """Processes over all machines."""
        return self.machines * self.per_machine


def launch_file() -> Path:
    """The file that AMOPO_LAUNCH names; without, one CPU process."""
    return Path(os.environ.get("AMOPO_LAUNCH") or DEFAULT)


def ranks_of(path: Path) -> int:
    """How many processes a launch file starts, over all machines."""
    return read_launch(path).ranks


def read_launch(path: Path) -> Launch:
    """What a launch file asks for.

    Raises:
        UserError: the file is missing or is no launch file, or its numbers start nothing.
    """
    try:
        said = YAML(typ="safe").load(path)
        given = said["num_processes"]
    except FileNotFoundError:
        raise UserError(f"AMOPO_LAUNCH: {path} is not here; take one of configs/accelerate") from None
    except IsADirectoryError:
        raise UserError(f"AMOPO_LAUNCH: {path} is a folder; name one of its files") from None
    except MarkedYAMLError as error:
        where = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"AMOPO_LAUNCH: {path}{where}: no valid YAML: {error.problem}") from None
    except (YAMLError, UnicodeDecodeError, KeyError, TypeError):
        raise UserError(
            f"AMOPO_LAUNCH: {path} is no accelerate launch file: it names no num_processes (see configs/accelerate)"
        ) from None
    processes = _count(path, "num_processes", given)
    machines = _count(path, "num_machines", said.get("num_machines", 1))
    if processes % machines:
        raise UserError(
            f"AMOPO_LAUNCH: {path}: num_processes is {processes} on num_machines {machines}; every machine starts"
            " equally many, so make it a multiple"
        )
    kind = said.get("distributed_type", "NO")
    if kind not in KINDS:
        raise UserError(f"AMOPO_LAUNCH: {path}: distributed_type is {kind!r}; expected one of {', '.join(KINDS)}")
    return Launch(
        path,
        kind=kind,
        on_cpu=bool(said.get("use_cpu", False)),
        machines=_machines_here(machines),
        per_machine=processes // machines,
    )


def machine_rank(path: Path) -> int:
    """Which of the machines this one is, from 0: the one that publishes what was trained."""
    launch = read_launch(path)
    if launch.machines == 1:
        return 0
    name, value = _environment("MACHINE_RANK", "SLURM_NODEID")
    if value is None or not value.isdecimal() or int(value) >= launch.machines:
        raise UserError(
            f"{name} is {value or 'not set'}; {path} starts {launch.machines} machines, each of which must know which"
            f" one it is: 0 to {launch.machines - 1} (configs/slurm/train.sbatch sets it)"
        )
    return int(value)


def launch_command(path: Path, threads: int, module_and_arguments: Sequence[str]) -> list[str]:
    """The command that starts this machine's processes of a Python module.

    Raises:
        UserError: the file, or what the environment must say of several machines, is not right.
    """
    launch = read_launch(path)
    if launch.kind == "DEEPSPEED" and find_spec("deepspeed") is None:
        raise UserError(
            f"AMOPO_LAUNCH: {path} needs deepspeed, which is not installed: pip install -c constraints.txt -e"
            " '.[deepspeed]'"
        )
    options = ["--quiet", "--config_file", str(path), "--num_cpu_threads_per_process", str(threads)]
    options += ["--log_dir", os.devnull]  # torch would leave a folder of empty logs in /tmp
    return [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *options,
        *_rendezvous(launch),
        *("-m", *module_and_arguments),
    ]


def _rendezvous(launch: Launch) -> list[str]:
    if launch.machines == 1:
        return ["--main_process_port", "0"]  # any free one: two trainings on a machine do not meet
    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if not address or not port or not port.isdecimal():
        raise UserError(
            f"MASTER_ADDR is {address or 'not set'} and MASTER_PORT is {port or 'not set'}; {launch.path} starts"
            f" {launch.machines} machines, which meet at the address of the first one and a free port (such as 29500)"
        )
    options = {
        "--num_machines": launch.machines,
        "--num_processes": launch.ranks,
        "--machine_rank": machine_rank(launch.path),
        "--main_process_ip": address,
        "--main_process_port": port,
    }
    return [str(word) for option in options.items() for word in option]


def _machines_here(machines: int) -> int:
    """A file for one machine starts one, also on a machine of a larger allocation."""
    name, value = _environment("NUM_MACHINES", "SLURM_NNODES")
    if machines == 1 or value is None:
        return machines
    if not value.isdecimal() or int(value) < 1:
        raise UserError(f"{name} is {value!r}; expected how many machines train together, such as 2")
    return int(value)


def _environment(*names: str) -> tuple[str, str | None]:
    """The first of the variables that is set, and its value; the first name where none is."""
    found = next((name for name in names if os.environ.get(name)), None)
    return (found, os.environ[found]) if found else (names[0], None)


def _count(path: Path, key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"AMOPO_LAUNCH: {path}: {key} is {value!r}; expected a whole number from 1, such as 2")
    return value
