"""The gated layers of a policy's blocks, with less kept for the backward pass.

silu(gate) * up keeps gate, silu(gate), up and their product; what costs one cheap pass to make again is not kept here:
a block of Llama's or Qwen's kind then keeps about a seventh less.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import SiLUActivation


class _GatedProduct(torch.autograd.Function):
    """silu(gate) * up."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        gate, up = ctx.saved_tensors
        (grad,) = grads
        return torch.ops.aten.silu_backward(grad * up, gate), F.silu(gate).mul_(grad)


def gated_product(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, of any one shape; only the two arguments are kept for the gradient."""
    product: Tensor = _GatedProduct.apply(gate, up)  # type: ignore[no-untyped-call]
    return product


def gated_layers(model: nn.Module) -> Iterator[nn.Module]:
    """The layers down(silu(gate(x)) * up(x)) of a model, as transformers names their parts."""
    for module in model.modules():
        parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
        activation = getattr(module, "act_fn", None)
        if isinstance(activation, nn.SiLU | SiLUActivation) and all(isinstance(part, nn.Module) for part in parts):
            yield module


def lean_forward(layer: Any, states: Tensor) -> Tensor:
    """What such a layer computes."""
    result: Tensor = layer.down_proj(gated_product(layer.gate_proj(states), layer.up_proj(states)))
    return result
