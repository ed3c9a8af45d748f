"""The Gaussian draws of the weighting: the same for a pair at a step, wherever it lands."""

from __future__ import annotations

from hashlib import sha256

import torch
from torch import Tensor


def standard_normal(seed: int, step: int, pair_id: str, views: int) -> Tensor:
    """N(0, 1) draws of one pair at one optimizer step, shape (views, 2): for the chosen and the rejected response.

    Keyed by seed, step and pair: rank, micro-batch, order and resumption change nothing.
    """
    key = sha256(f"{seed}/{step}/{pair_id}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))
    return torch.randn(views, 2, generator=generator)
