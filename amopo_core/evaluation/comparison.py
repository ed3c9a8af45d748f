"""Two policies side by side on the same examples: a mean each and the difference, with paired bootstrap intervals.

Axes: E = examples, S = the two sides (baseline, candidate), K = dimensions, D = draws of the bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from amopo_core.config import GENERIC_VIEW, Params
from amopo_core.errors import UserError
from amopo_core.evaluation.bootstrap import Floats, Interval, interval, resampled_means
from amopo_core.evaluation.measurement import Answer, Measurement


@dataclass(frozen=True)
class Examples:
    """A metric's value of every example in every dimension."""

    ids: Sequence[Hashable]
    """What each example is; the same for two policies that can be compared."""
    prompt_ids: Sequence[str]
    values_EK: Floats
    """NaN where the example says nothing about the dimension."""


@dataclass(frozen=True)
class Metric:
    """One way to turn a measurement into numbers; higher is better."""

    key: str
    name: str
    unit: str
    examples: Callable[[Measurement, Sequence[str]], Examples]

    @property
    def title(self) -> str:
        """The name at the beginning of a line."""
        return self.name[:1].upper() + self.name[1:]


@dataclass(frozen=True)
class Contrast:
    """One quantity of two policies."""

    baseline: Interval
    candidate: Interval
    difference: Interval
    """Candidate minus baseline, paired by example."""


@dataclass(frozen=True)
class Comparison:
    """Two policies under one metric."""

    metric: Metric
    prompts: int
    """Prompts on which both were measured."""
    dimensions: Mapping[str, Contrast | None]
    """None where no example says anything about the dimension."""
    overall: Contrast | None
    """Weighted mean over the dimensions; None where one with a weight above 0 is None."""

    @property
    def rows(self) -> dict[str, Contrast | None]:
        """Everything compared by its name; the overall mean first, under the name that no dimension may have."""
        return {GENERIC_VIEW: self.overall, **self.dimensions}


def compare(baseline: Measurement, candidate: Measurement, params: Params, metric: Metric | None = None) -> Comparison:
    """How the candidate differs from the baseline, overall and in every dimension.

    Args:
        baseline: what the base policy, or the champion, did.
        candidate: what the candidate did with the same pairs and prompts.
        params: names the dimensions, their weights in the overall metric, and the bootstrap.
        metric: by default the judge's score where the policies were judged, else the reward accuracy.

    Raises:
        UserError: the two were not measured on the same examples in the same way, or a score is missing.
    """
    metric = metric or deciding_metric(baseline, candidate)
    names, settings = list(params.dimensions), params.evaluation
    prompt_ids, values_ESK = _paired(metric.examples(baseline, names), metric.examples(candidate, names))
    resampled_DSK = _resampled(values_ESK, prompt_ids, draws=settings.bootstrap_draws, seed=params.runtime.seed)
    means_SK, weights_K = _means(values_ESK), overall_weights(params)
    weighed = weights_K > 0  # a dimension without weight may be unmeasured: NaN * 0 is NaN
    return Comparison(
        metric=metric,
        prompts=len(set(prompt_ids)),
        dimensions={
            name: _contrast(means_SK[:, k], resampled_DSK[:, :, k], settings.confidence) for k, name in enumerate(names)
        },
        overall=_contrast(
            means_SK[:, weighed] @ weights_K[weighed],
            resampled_DSK[:, :, weighed] @ weights_K[weighed],
            settings.confidence,
        ),
    )


def contrast_of(values_ES: Floats, prompt_ids: Sequence[str], params: Params) -> Contrast:
    """One quantity of two policies on the same examples, shape (E, 2): the baseline's and the candidate's values."""
    settings = params.evaluation
    resampled_DS = resampled_means(values_ES, prompt_ids, draws=settings.bootstrap_draws, seed=params.runtime.seed)
    found = _contrast(values_ES.mean(axis=0), resampled_DS, settings.confidence)
    if found is None:
        raise ValueError("an example has no value")
    return found


def mean_values(measurement: Measurement, params: Params, metric: Metric) -> dict[str, float]:
    """The metric's mean in every dimension in which the measurement says anything."""
    names = list(params.dimensions)
    means_K = _means(metric.examples(measurement, names).values_EK)
    return {name: float(mean) for name, mean in zip(names, means_K, strict=True) if not np.isnan(mean)}


def available_metrics(measurement: Measurement) -> list[Metric]:
    """Every metric that the measurement has, the one that decides a promotion first."""
    return [*([JUDGE_SCORE] if measurement.judged else []), REWARD_ACCURACY, REWARD_MARGIN]


def deciding_metric(baseline: Measurement, candidate: Measurement) -> Metric:
    """The metric that a promotion is decided by: the judge's score, without a judge the reward accuracy."""
    if baseline.judged != candidate.judged:
        raise UserError(
            "one policy was measured with a judge, the other without; evaluate both with one evaluation.judge"
        )
    return JUDGE_SCORE if candidate.judged else REWARD_ACCURACY


def overall_weights(params: Params) -> Floats:
    """Share of each dimension in the overall metric, shape (K,), sum 1; one not in `promotion.weights` weighs 1."""
    weights_K = np.array([params.promotion.weights.get(name, 1.0) for name in params.dimensions])
    return np.asarray(weights_K / weights_K.sum())


def _judge_scores(measurement: Measurement, names: Sequence[str]) -> Examples:
    return Examples(
        ids=[answer.prompt_id for answer in measurement.answers],
        prompt_ids=[answer.prompt_id for answer in measurement.answers],
        values_EK=_matrix([[_score(answer, name) for name in names] for answer in measurement.answers], len(names)),
    )


def _score(answer: Answer, name: str) -> float:
    if answer.scores is None or name not in answer.scores:
        raise UserError(f"the answer to prompt {answer.prompt_id} has no judge's score for {name}; run `dvc repro`")
    return answer.scores[name]


def _reward_accuracies(measurement: Measurement, names: Sequence[str]) -> Examples:
    """1 where the better response is the likelier one, else 0; a pair that ties in the dimension says nothing."""
    margins = _reward_margins(measurement, names)
    accuracies_EK = np.where(np.isnan(margins.values_EK), np.nan, margins.values_EK > 0)
    return Examples(margins.ids, margins.prompt_ids, accuracies_EK)


def _reward_margins(measurement: Measurement, names: Sequence[str]) -> Examples:
    return Examples(
        ids=[(pair.pair_id, *pair.score_gaps.items()) for pair in measurement.pairs],
        prompt_ids=[pair.prompt_id for pair in measurement.pairs],
        values_EK=_matrix([[pair.margin(name) for name in names] for pair in measurement.pairs], len(names)),
    )


def _matrix(rows: Sequence[Sequence[float | None]], columns: int) -> Floats:
    """Rows as an array, NaN where a value is None; with its columns also where there is no row."""
    return np.array(rows, dtype=np.float64).reshape(-1, columns)


JUDGE_SCORE = Metric("judge", "judge's score", "points of 1 to 5", _judge_scores)
REWARD_ACCURACY = Metric("accuracy", "reward accuracy", "share of the pairs", _reward_accuracies)
REWARD_MARGIN = Metric("margin", "reward margin", "nats per token", _reward_margins)


def _paired(baseline: Examples, candidate: Examples) -> tuple[list[str], Floats]:
    """Prompt and values, shape (E, S, K), of the examples that say something of both; NaN where either has none."""
    if list(baseline.ids) != list(candidate.ids):
        common = len(set(baseline.ids) & set(candidate.ids))
        raise UserError(
            f"the two policies were measured on different examples ({len(baseline.ids)} and {len(candidate.ids)},"
            f" {common} in common); evaluate both on the same test set: run `dvc repro`"
        )
    unpaired_EK = np.isnan(baseline.values_EK + candidate.values_EK)
    values_ESK = np.stack([baseline.values_EK, candidate.values_EK], axis=1)
    values_ESK[np.repeat(unpaired_EK[:, None], 2, axis=1)] = np.nan
    said_E = ~np.all(unpaired_EK, axis=1)
    return [baseline.prompt_ids[example] for example in np.flatnonzero(said_E).tolist()], values_ESK[said_E]


def _resampled(values_ESK: Floats, prompt_ids: Sequence[str], *, draws: int, seed: int) -> Floats:
    """Means over resampled prompts, shape (D, S, K); both sides share every draw."""
    examples, sides, dimensions = values_ESK.shape
    columns = values_ESK.reshape(examples, sides * dimensions)
    return resampled_means(columns, prompt_ids, draws=draws, seed=seed).reshape(draws, sides, dimensions)


def _means(values: Floats) -> Floats:
    """Means over the examples, the first axis; NaN where no example has a value."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(values, axis=0) / (~np.isnan(values)).sum(axis=0))


def _contrast(means_S: Floats, resampled_DS: Floats, confidence: float) -> Contrast | None:
    if np.isnan(means_S).any():
        return None
    baseline, candidate = (interval(means_S[side], resampled_DS[:, side], confidence) for side in (0, 1))
    difference = interval(means_S[1] - means_S[0], resampled_DS[:, 1] - resampled_DS[:, 0], confidence)
    return Contrast(baseline, candidate, difference)
