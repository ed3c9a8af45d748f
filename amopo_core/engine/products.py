"""Matrix products of 32 bits on a CPU, by the faster of the two libraries that torch brings along.

torch asks MKL for them, the faster one on Intel's processors, which keeps those of others from their widest registers.
oneDNN, which torch asks for products of 16 bits, goes by what the processor says it can.

Axes: M = rows of the states, K = their numbers, N = numbers of the outcome.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_IS_HERE = (
    torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
_PLAIN = (Tensor, torch.nn.Parameter)
CPU_INFO = Path("/proc/cpuinfo")
"""What Linux says of the processor."""


def intel_made_it() -> bool:
    """Whether this processor is Intel's, by the name that MKL goes by too."""
    return "GenuineIntel" in (CPU_INFO.read_text() if CPU_INFO.exists() else platform.processor())


_ONEDNN_IS_FASTER = _IS_HERE and not intel_made_it()


def by_onednn(*tensors: Tensor) -> bool:
    """Whether oneDNN multiplies these in MKL's place: plain tensors of 32 bits, on a CPU that is not Intel's.

    What torch.compile traces is left to it.
    """
    return (
        _ONEDNN_IS_FASTER
        and not torch.compiler.is_compiling()
        and all(
            each.dtype == torch.float32 and each.device.type == "cpu" and each.numel() and type(each) in _PLAIN
            for each in tensors
        )
    )


def product(left_MK: Tensor, right_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """Left @ right.T + bias, shape (M, N) or as many axes as `left_MK` has; without gradients of its own.

    The left one is copied where its rows do not lie one after the other, the right one may lie as it likes.
    """
    if not by_onednn(left_MK, right_NK):
        return F.linear(left_MK, right_NK, bias_N)
    found: Tensor = torch.ops.mkldnn._linear_pointwise(left_MK, right_NK, bias_N, "none", [], "")
    return found


def product_over_rows(left_MN: Tensor, right_MK: Tensor) -> Tensor:
    """Left.T @ right, shape (N, K): the gradient of a weight. The one of fewer numbers is copied on its way."""
    if not by_onednn(left_MN, right_MK):
        return left_MN.t() @ right_MK
    if left_MN.shape[1] <= right_MK.shape[1]:
        return product(left_MN.t(), right_MK.t())
    return product(right_MK.t(), left_MN.t()).t()


def linear(states: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
    """States @ weight.T + bias over the last axis, with gradients for all three."""
    if not by_onednn(states, weight_NK) or torch.is_autocast_enabled("cpu"):
        return F.linear(states, weight_NK, bias_N)
    found: Tensor = _Linear.apply(states, weight_NK, bias_N)  # type: ignore[no-untyped-call]
    return found


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
        """States @ weight.T + bias."""
        ctx.save_for_backward(states if ctx.needs_input_grad[1] else None, weight_NK)
        return product(states, weight_NK, bias_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """By states: grad @ weight. By weight: grad.T @ states. By bias: the sum of grad over rows."""
        states, weight_NK = ctx.saved_tensors
        by_states, by_weight, by_bias = ctx.needs_input_grad
        rows_MN = grad.flatten(0, -2)
        return (
            product(grad, weight_NK.t()) if by_states else None,
            product_over_rows(rows_MN, states.flatten(0, -2)) if by_weight else None,
            rows_MN.sum(0) if by_bias else None,
        )
