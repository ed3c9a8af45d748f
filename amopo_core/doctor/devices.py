"""The devices that training would run on: GPUs, CPU, threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from amopo_core.doctor.finding import Finding, ok, warn, wrong
from amopo_core.training.launch import SHARDED, Launch

if TYPE_CHECKING:
    from amopo_core.doctor.examine import Site


def check(site: Site) -> Iterator[Finding]:
    """GPUs by name and memory, what the CPU can do, and whether the launch file fits both."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for number in range(gpus):
        gpu = torch.cuda.get_device_properties(number)
        yield ok(f"GPU {number}: {gpu.name}, {gpu.total_memory / 2**30:.0f} GiB")
    if not gpus:
        yield ok("no GPU that torch can use")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield ok(f"CPU: {torch.backends.cpu.get_cpu_capability()}, {cores} cores, torch takes {torch.get_num_threads()}")
    if site.launch:
        yield from launch_fits(site.launch, gpus)
        if site.params and (site.launch.on_cpu or not (gpus or site.launch.kind in SHARDED)):
            yield from threads_fit(site.params.runtime.threads, site.launch.per_machine, cores)


def launch_fits(launch: Launch, gpus: int) -> Iterator[Finding]:
    """Whether what the launch file starts meets what is here."""
    if launch.on_cpu and launch.per_machine > 1:
        said = f"{launch.path}: use_cpu: true with {launch.per_machine} processes starts trainings that do not meet"
        yield wrong(said, "use configs/accelerate/cpu-two-ranks.yaml")
    elif launch.on_cpu and gpus:
        yield warn(f"{launch.path} trains on the CPU beside {gpus} GPU", "AMOPO_LAUNCH=configs/accelerate/one-gpu.yaml")
    elif launch.on_cpu:
        yield ok(f"{launch.path} trains on the CPU")
    elif gpus >= launch.per_machine:
        yield ok(f"{launch.path} trains on {launch.per_machine} of {gpus} GPU")
    elif gpus:
        said = f"{launch.path} starts {launch.per_machine} processes a machine, and there are {gpus} GPU"
        yield wrong(said, f"set its num_processes to {gpus} a machine")
    elif launch.kind in SHARDED:
        yield wrong(f"{launch.path} spreads the weights over GPUs, and there is none", "use a file for the CPU")
    elif launch.kind == "NO":
        said = f"{launch.path} is for a GPU, and there is none: training would run on the CPU"
        yield warn(said, "install the GPU's driver and a torch with CUDA, or use configs/accelerate/cpu.yaml")
    else:
        yield ok(f"{launch.path} trains {launch.per_machine} processes on the CPU (gloo): there is no GPU")


def threads_fit(threads: int, processes: int, cores: int) -> Iterator[Finding]:
    """Whether the ranks' threads have a core each; nothing is said where they have."""
    if threads * processes > cores:
        said = f"{processes} processes of runtime.threads {threads} on {cores} cores wait for each other"
        yield warn(said, "lower runtime.threads (it changes the last bits of the weights) or the processes")
