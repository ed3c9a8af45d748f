"""Tensors to a device without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


def moved_to(device: torch.device, tensor: Tensor) -> Tensor:
    """The tensor on a device; on the way to a GPU from memory that it can read while the host goes on."""
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
