"""What a process found about its variant; apart from what it measures with, which takes seconds to import."""

from __future__ import annotations

from dataclasses import dataclass

PRODUCTS = "products"
"""Not a variant: the matrix products of the output layer alone."""
IN_TURN = "--in-turn"
"""Tells a process that others take steps between its own."""
MY_TURN = "my turn?"
"""What such a process asks before each of its timed steps, and before its end."""


@dataclass(frozen=True)
class Measured:
    """What a process found about its variant."""

    seconds: list[float]
    """Of each timed step: data, forward, backward, clipping, optimiser."""
    peak_mb: float = 0.0
    """Peak memory in the timed steps beyond parameters, gradients and optimiser state, and beyond what the process
    held before its first step."""
    process_mb: float = 0.0
    """Peak memory of the whole process, everything included."""
    state_mb: float = 0.0
    """Parameters, gradients and optimiser state."""
    objective_share: float = 0.0
    """Share of all steps' time that statistics, weights and loss took; 0 where it was not taken."""
    parameters: int = 0
    loss: float = 0.0
    """Mean of all steps."""
    out_of_memory: bool = False
    """A GPU's memory did not suffice; then nothing else was found."""
