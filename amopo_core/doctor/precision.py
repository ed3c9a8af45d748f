"""How exact matrix products are on the device that trains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from amopo_core.doctor.finding import Finding, ok, warn, wrong

if TYPE_CHECKING:
    from amopo_core.doctor.examine import Site

SIZE = 512
EXACT = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""Relative error up to which a product counts as computed in that precision."""


def check(site: Site) -> Iterator[Finding]:
    """Products in float32 and bfloat16 against float64, and whether bfloat16 is computed in hardware."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for dtype, limit in EXACT.items():
        yield _product(dtype, limit, device)
    fast = has_fast_bfloat16(device)
    wanted = site.params is not None and "bfloat16" in site.params.train.precision
    if fast or not wanted:
        yield ok(f"bfloat16 on {device.type}: {'in hardware' if fast else 'emulated, slow, and not asked for'}")
    else:
        said = f"bfloat16 on this {device.type} is emulated, and train.precision asks for it"
        yield warn(said, "train.precision: float32 is faster here")


def matmul_error(dtype: torch.dtype, device: torch.device) -> float:
    """Relative error (Frobenius) of a product of normal numbers, rounding of the factors left out."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(SIZE, SIZE, generator=generator).to(dtype) for _ in range(2))
    exact = left.double() @ right.double()
    found = (left.to(device) @ right.to(device)).cpu().double()
    return float((found - exact).norm() / exact.norm())


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 without emulating it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    with_mkldnn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(with_mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _product(dtype: torch.dtype, limit: float, device: torch.device) -> Finding:
    name = str(dtype).removeprefix("torch.")
    error = matmul_error(dtype, device)
    said = f"{name} products on {device.type}: relative error {error:.1e}"
    if error <= limit:
        return ok(said)
    if dtype == torch.float32 and error < EXACT[torch.bfloat16]:
        return warn(
            f"{said}: float32 is rounded to fewer bits",
            "unset TORCH_ALLOW_TF32_CUBLAS_OVERRIDE and NVIDIA_TF32_OVERRIDE",
        )
    return wrong(f"{said}, at most {limit:.0e} expected", "the device, its driver or torch computes wrongly: change it")
