"""Whether answers look like text that somebody wrote: a degenerate policy is seen here first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from amopo_core.evaluation.measurement import Answer


@dataclass(frozen=True)
class Health:
    """Means over a policy's answers."""

    tokens: float
    """Mean length of an answer, without the end token [tokens]."""
    repetition: float
    """Mean share of an answer's 3-grams that it holds already, 0 to 1."""
    ended: float
    """Share of the answers that ended by themselves, 0 to 1."""


def health(answers: Sequence[Answer]) -> Health:
    """The means over the answers, of which there is at least one."""
    return Health(
        tokens=fmean(answer.tokens for answer in answers),
        repetition=fmean(answer.repetition for answer in answers),
        ended=fmean(answer.ended for answer in answers),
    )
