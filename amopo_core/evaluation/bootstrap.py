"""The cluster bootstrap: how far a mean would move if other prompts had been drawn.

Axes: E = examples, K = columns (what is averaged), P = prompts, D = draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_CELLS_AT_ONCE = 4_000_000
"""Draws times prompts held in memory together: 32 MB."""


@dataclass(frozen=True)
class Interval:
    """A mean with the bounds of its bootstrap interval."""

    mean: float
    low: float
    high: float


def resampled_means(values_EK: Floats, prompt_ids: Sequence[str], *, draws: int, seed: int) -> Floats:
    """Column means over resampled prompts, shape (D, K): a prompt is drawn with all its examples, or not at all.

    m[d,k] = sum_p n[d,p] s[p,k] / sum_p n[d,p] c[p,k], with s and c the sum and the count of prompt p's values in
    column k, and n[d,:] ~ Multinomial(P, 1/P). All columns share a draw, so differences of columns are paired.

    Args:
        values_EK: NaN where an example has no value in a column; a draw without any value in a column gives NaN there.
        prompt_ids: the prompt of each example, length E.
        draws: D.
        seed: seed of the draws.
    """
    sums_PK, counts_PK = _by_prompt(values_EK, prompt_ids)
    prompts = len(sums_PK)
    if prompts == 0:
        return np.full((draws, values_EK.shape[1]), np.nan)
    generator = np.random.default_rng(seed)
    chunk = max(1, _CELLS_AT_ONCE // prompts)
    means = []
    for start in range(0, draws, chunk):
        times_DP = generator.multinomial(prompts, np.full(prompts, 1 / prompts), size=min(chunk, draws - start))
        with np.errstate(invalid="ignore"):
            means.append((times_DP @ sums_PK) / (times_DP @ counts_PK))
    return np.concatenate(means)


def interval(mean: float, resampled_D: Floats, confidence: float) -> Interval:
    """The percentile interval around a mean: the middle `confidence` of the resampled means, NaNs left out."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(resampled_D, [tail, 1 - tail])
    return Interval(float(mean), float(low), float(high))


def _by_prompt(values_EK: Floats, prompt_ids: Sequence[str]) -> tuple[Floats, Floats]:
    """Sum and count of the values of each prompt, both of shape (P, K)."""
    names, places_E = np.unique(np.asarray(prompt_ids), return_inverse=True)
    sums_PK = np.zeros((len(names), values_EK.shape[1]))
    counts_PK = np.zeros_like(sums_PK)
    np.add.at(sums_PK, places_E, np.nan_to_num(values_EK))
    np.add.at(counts_PK, places_E, ~np.isnan(values_EK))
    return sums_PK, counts_PK
