"""The kernels that are there: attention, compilers, optional packages."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from amopo_core.doctor.finding import Finding, ok, warn, wrong

if TYPE_CHECKING:
    from amopo_core.doctor.examine import Site

BACKENDS = ("MATH", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION")
PACKAGES = {
    "triton": "triton",
    "flash-attn": "flash_attn",
    "liger-kernel": "liger_kernel",
    "bitsandbytes": "bitsandbytes",
    "peft": "peft",
    "deepspeed": "deepspeed",
}
"""Optional packages and what they are imported as."""


def check(site: Site) -> Iterator[Finding]:
    """Attention that runs here, and the optional packages; wrong where one is missing that is asked for."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    running = [name for name in BACKENDS if runs_sdpa(name, device, dtype)]
    yield ok(f"sdpa on {device.type}: {', '.join(running).lower() or 'none'}")
    yield _flex(device)
    found = {package: _version(package, module) for package, module in PACKAGES.items()}
    listed = ", ".join(f"{package} {number or 'not installed'}" for package, number in found.items())
    yield ok(f"optional packages: {listed}")
    yield from _lacking(site, found, device)


def runs_sdpa(backend: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether one backend of torch's attention runs a small causal example."""
    query = torch.zeros(1, 2, 16, 64, device=device, dtype=dtype)
    try:
        with sdpa_kernel(getattr(SDPBackend, backend)):
            scaled_dot_product_attention(query, query, query, is_causal=True)
    except RuntimeError:
        return False
    return True


def _flex(device: torch.device) -> Finding:
    if device.type != "cuda":
        return ok("flex_attention: not used on a CPU, where packed rows go segment by segment through sdpa")
    from torch.nn.attention.flex_attention import flex_attention

    query = torch.zeros(1, 2, 128, 64, device=device, dtype=torch.bfloat16)
    try:
        torch.compile(flex_attention)(query, query, query)
    except Exception as error:  # the compiler raises anything
        mend = "install triton and a C compiler; without, packed rows go segment by segment through sdpa"
        return warn(f"flex_attention does not compile: {str(error).partition(chr(10))[0][:200]}", mend)
    return ok("flex_attention: compiles and runs")


def _lacking(site: Site, found: dict[str, str | None], device: torch.device) -> Iterator[Finding]:
    if site.launch and site.launch.kind == "DEEPSPEED" and not found["deepspeed"]:
        yield _install("deepspeed", f"{site.launch.path} needs it")
    adapter = site.params.train.adapter if site.params else None
    if adapter and not found["peft"]:
        yield _install("peft", "train.adapter needs it")
    if adapter and adapter.base_bits == 4:
        if not found["bitsandbytes"]:
            yield _install("bitsandbytes", "train.adapter.base_bits: 4 needs it")
        if device.type != "cuda":
            yield warn("train.adapter.base_bits is 4 on a CPU", "expect it to be slow; 16 keeps the base as it is")


def _install(package: str, why: str) -> Finding:
    return wrong(f"{package} is not installed, and {why}", f"pip install -c constraints.txt {package}")


def _version(package: str, module: str) -> str | None:
    if find_spec(module) is None:
        return None
    try:
        return version(package)
    except PackageNotFoundError:
        return "without a version"
