"""Feedback as it would come in: responses to the playground's prompts, rated by people with faults of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from amopo_core.config import Playground
from amopo_core.playground.domain import Domain, Question
from amopo_core.playground.responses import draw_quality, write_response
from amopo_core.playground.scoring import score_response

SCALES = {"helpfulness": (1, 5), "correctness": (0, 10), "instruction_following": (0, 4)}
"""The scale on which each dimension is rated, as `sources.playground` of params.yaml declares it."""

RATERS = 5


@dataclass(frozen=True)
class Rater:
    """Someone who rates: a constant shift per dimension, a spread around the middle, and noise at every rating."""

    name: str
    bias: Mapping[str, float]
    """Added to every score [points of the 1 to 5 scale]."""
    spread: float
    """Factor on the distance from the scale's middle."""
    noise: float
    """Standard deviation of what is added anew each time [points of the 1 to 5 scale]."""

    def rate(self, truth: Mapping[str, float], rng: Random) -> dict[str, int]:
        """The rater's scores, each a whole number of its dimension's scale."""
        return {name: self._rated(name, score, rng) for name, score in truth.items()}

    def _rated(self, dimension: str, truth: float, rng: Random) -> int:
        felt = 3 + self.spread * (truth - 3) + self.bias[dimension] + rng.gauss(0, self.noise)
        low, high = SCALES[dimension]
        return round(low + (high - low) * (min(5.0, max(1.0, felt)) - 1) / 4)


def make_raters(playground: Playground) -> list[Rater]:
    """The raters of one seed."""
    rng = Random(f"raters {playground.seed}")
    return [
        Rater(
            name=f"r{number}",
            bias={dimension: rng.gauss(0, playground.rater_bias) for dimension in SCALES},
            spread=rng.uniform(1 - playground.rater_spread, 1 + playground.rater_spread),
            noise=playground.rater_noise,
        )
        for number in range(1, RATERS + 1)
    ]


def feedback_rows(playground: Playground) -> Iterator[dict[str, Any]]:
    """Rows of the source `playground`, one a rating: a share of the responses has two, by two raters."""
    domain, rng, raters = Domain(playground.seed), Random(f"feedback {playground.seed}"), make_raters(playground)
    for prompt, question in _prompts(domain, rng, playground.prompts).items():
        for response in _responses(question, rng, playground.responses_per_prompt):
            truth = score_response(question, response)
            for rater in rng.sample(raters, 1 + (rng.random() < playground.second_rater_share)):
                yield {"prompt": prompt, "response": response, "rater": rater.name, "scores": rater.rate(truth, rng)}


def _prompts(domain: Domain, rng: Random, count: int) -> dict[str, Question]:
    """Different prompts with their questions."""
    prompts: dict[str, Question] = {}
    while len(prompts) < count:
        question = domain.question(rng, held_out=False)
        prompts[domain.template(rng, held_out=False).prompt(question)] = question
    return prompts


def _responses(question: Question, rng: Random, count: int) -> list[str]:
    """Different responses: the same text twice would be one response."""
    responses: dict[str, None] = {}
    while len(responses) < count:
        responses[write_response(question, draw_quality(rng), rng)] = None
    return list(responses)
