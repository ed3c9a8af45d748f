"""Layers of a policy's blocks that keep less for the backward pass, or multiply faster.

silu(gate) * up keeps gate, silu(gate), up and the product for what follows it; a normalisation keeps its input in
float32, and once more normalised. What costs one cheap pass to make again is not kept here: a block of Llama's or
Qwen's kind then keeps about a third less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers.activations import SiLUActivation

from amopo_core.engine.products import linear, product, product_over_rows


def lean_layers(model: nn.Module) -> Iterator[tuple[nn.Module, Callable[[Any, Tensor], Tensor]]]:
    """The model's layers that can do with less, as transformers names their parts, each with what computes the same."""
    own_product = {module.down_proj for module in model.modules() if is_gated(module) and _multiplies(module)}
    for module in model.modules():
        if is_gated(module):
            yield module, gated_forward
        elif _is_norm(module):
            yield module, norm_forward
        elif _is_plain(module) and module not in own_product:
            yield module, linear_forward


def linear_forward(layer: Any, states: Tensor) -> Tensor:
    """States @ weight.T + bias."""
    return linear(states, layer.weight, layer.bias)


def gated_forward(layer: Any, states: Tensor) -> Tensor:
    """down(silu(gate(x)) * up(x)) of a layer with these parts."""
    gate, up = layer.gate_proj(states), layer.up_proj(states)
    if _multiplies(layer) and not torch.is_autocast_enabled(states.device.type):
        found: Tensor = _GatedProjection.apply(gate, up, layer.down_proj.weight)  # type: ignore[no-untyped-call]
        return found
    projected: Tensor = layer.down_proj(gated_product(gate, up))
    return projected


def gated_product(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, of any one shape; only the two arguments are kept for the gradient."""
    found: Tensor = _GatedProduct.apply(gate, up)  # type: ignore[no-untyped-call]
    return found


def norm_forward(norm: Any, states: Tensor) -> Tensor:
    """Weight * x / sqrt(mean(x ** 2) + epsilon) over the last axis, in float32 but for the weight."""
    found: Tensor = _RMSNorm.apply(states, norm.weight, norm.variance_epsilon)  # type: ignore[no-untyped-call]
    return found


def is_gated(module: object) -> bool:
    """Whether it is a module that computes down(silu(gate(x)) * up(x)), by the names and kind of its parts."""
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    activation = getattr(module, "act_fn", None)
    return isinstance(activation, nn.SiLU | SiLUActivation) and all(isinstance(part, nn.Module) for part in parts)


def _is_plain(layer: nn.Module) -> bool:
    """Whether its weight can be used past its own call: ZeRO-3, for one, gathers a weight in the layer's hooks."""
    hooked = layer._forward_pre_hooks or layer._forward_hooks or "forward" in vars(layer)
    return type(layer) is nn.Linear and not hooked


def _multiplies(layer: Any) -> bool:
    """Whether a gated layer's last product is made with its activation, past the projection's own call."""
    return _is_plain(layer.down_proj) and layer.down_proj.bias is None


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")


def _silu_backward_(grad: Tensor, gate: Tensor) -> Tensor:
    """The gradient of silu(gate), in place of the one given."""
    slope: Tensor = torch.ops.aten.silu_backward.grad_input(grad, gate, grad_input=grad)
    return slope


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
        return _silu_backward_(grad * up, gate), F.silu(gate).mul_(grad)


class _GatedProjection(torch.autograd.Function):
    """(silu(gate) * up) @ weight.T, whose product is made again."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up, weight)
        return product(F.silu(gate).mul_(up), weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, weight = ctx.saved_tensors
        silu, grad_weight = F.silu(gate), None
        if ctx.needs_input_grad[2]:
            grad_weight = product_over_rows(grad.flatten(0, -2), (silu * up).flatten(0, -2))
        slope = product(grad, weight.t())
        grad_up = silu.mul_(slope)
        return _silu_backward_(slope.mul_(up), gate), grad_up, grad_weight


class _RMSNorm(torch.autograd.Function):
    """Weight * y with y = x * scale, scale = 1 / sqrt(mean(x ** 2) + epsilon).

    By weight the gradient is sum(grad * y), by x (grad * weight - y * mean(grad * weight * y)) * scale.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = states.to(torch.float32)
        norm: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = norm.square_().div_(wide.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(states, weight, scale)
        return weight * (wide * scale).to(states.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, scale = ctx.saved_tensors
        normalized = states.to(torch.float32) * scale
        products, grad_weight = grad * normalized, None
        if ctx.needs_input_grad[1]:
            grad_weight = products.flatten(0, -2).sum(0).to(weight.dtype)
        mean = products.mul_(weight).mean(-1, keepdim=True)
        slope = (grad * weight).to(torch.float32)
        return slope.addcmul_(normalized, mean, value=-1).mul_(scale).to(states.dtype), grad_weight, None
