"""Stored feedback into rated responses on the common scale; every row ends there or in quarantine, and is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import fsum
from typing import Any

from amopo_core.config import Source
from amopo_core.data.batches import StoredRow
from amopo_core.data.ratings import Rating, Reason, Refused, ratings_of
from amopo_core.data.tables import SCALE, Message, Origin, RatedResponse, text_id


class CountsDoNotAddUp(AssertionError):
    """Rows got lost or came up twice: a defect of this module, never of the feedback."""


@dataclass(frozen=True)
class Quarantined:
    """A row that was refused."""

    source: str
    batch: str
    line: int
    reason: Reason
    mend: str
    row: Mapping[str, Any]


@dataclass
class SourceCounts:
    """What became of a source's rows: incoming = normalized + the sum of quarantined."""

    incoming: int = 0
    normalized: int = 0
    quarantined: Counter[Reason] = field(default_factory=Counter)
    duplicates: int = 0
    """Rows, among the normalized ones, that the source had already given exactly so; their scores count once."""
    numeric_strings: int = 0
    """Scores that came as text."""
    unrated: int = 0
    """Scores of declared dimensions that were missing, null or empty."""


@dataclass(frozen=True)
class Normalized:
    """What `normalize` makes."""

    responses: list[RatedResponse]
    """Sorted by prompt_id, then response_id: the order does not depend on the order in which rows came."""
    quarantined: list[Quarantined]
    """In the order the rows came."""
    counts: dict[str, SourceCounts]


@dataclass
class _Gathered:
    """All that is known about one response to one prompt."""

    prompt: list[Message]
    response: str
    ratings: dict[str, Rating] = field(default_factory=dict)
    origins: set[Origin] = field(default_factory=set)


_Responses = dict[tuple[str, str], _Gathered]


def normalize(rows: Iterable[StoredRow], sources: Mapping[str, Source], dimensions: Sequence[str]) -> Normalized:
    """The rated responses, the refused rows and the counts of each source.

    Ratings of the same response to the same prompt become one row: the mean of each dimension. What is exactly the
    same rating counts once: in `responses` the same row again, in `pairs` a response met again in another pair with
    the same rater and scores.

    Args:
        rows: stored rows, each of one of `sources`.
        sources: how to read them.
        dimensions: the names that each response's scores have; None where a response is unrated.
    """
    gathered: _Responses = {}
    quarantined: list[Quarantined] = []
    counts = {name: SourceCounts() for name in sorted(sources)}
    seen: set[tuple[str, str]] = set()
    for row in rows:
        count = counts[row.origin.source]
        count.incoming += 1
        try:
            ratings = ratings_of(row.fields, sources[row.origin.source])
        except Refused as refused:
            count.quarantined[refused.reason] += 1
            quarantined.append(
                Quarantined(**asdict(row.origin), reason=refused.reason, mend=refused.mend, row=row.fields)
            )
            continue
        identity = (row.origin.source, text_id(row.fields))
        _count(count, ratings, is_duplicate=identity in seen)
        seen.add(identity)
        _gather(gathered, row, ratings)
    responses = [_rated(*ids, gathered[ids], dimensions) for ids in sorted(gathered)]
    _check(counts, responses, quarantined)
    return Normalized(responses, quarantined, counts)


def _count(count: SourceCounts, ratings: Sequence[Rating], *, is_duplicate: bool) -> None:
    count.normalized += 1
    count.duplicates += is_duplicate
    count.numeric_strings += sum(rating.numeric_strings for rating in ratings)
    count.unrated += sum(score is None for rating in ratings for score in rating.scores.values())


def _gather(gathered: _Responses, row: StoredRow, ratings: Sequence[Rating]) -> None:
    for rating in ratings:
        ids = text_id(rating.prompt), text_id(rating.response)
        response = gathered.setdefault(ids, _Gathered(rating.prompt, rating.response))
        # A row of one response is a rating of its own; pairs repeat a response's one rating in every pair it is in.
        said = row.fields if len(ratings) == 1 else [rating.rater, rating.scores, rating.overall]
        response.ratings[text_id([row.origin.source, said])] = rating
        response.origins.add(row.origin)


def _rated(prompt_id: str, response_id: str, gathered: _Gathered, dimensions: Sequence[str]) -> RatedResponse:
    ratings = list(gathered.ratings.values())
    given = {name: [s for r in ratings if (s := r.scores.get(name)) is not None] for name in dimensions}
    return RatedResponse(
        prompt_id=prompt_id,
        prompt=gathered.prompt,
        response_id=response_id,
        response=gathered.response,
        scores={name: _mean(scores) for name, scores in given.items()},
        overall=_mean([rating.overall for rating in ratings if rating.overall is not None]),
        raters=len(ratings),
        agreement=agreement(list(given.values())),
        origins=sorted(gathered.origins, key=lambda origin: (origin.source, origin.batch, origin.line)),
    )


def agreement(given: Sequence[Sequence[float]]) -> float | None:
    """1 minus the mean over the dimensions of the ratings' mean absolute deviation over half the scale, 0 to 1.

    Args:
        given: the ratings of each dimension; a dimension with fewer than two says nothing about agreement.

    Returns:
        None where no dimension has two ratings.
    """
    half = (SCALE[1] - SCALE[0]) / 2
    deviations = [_mean_absolute_deviation(scores) / half for scores in given if len(scores) > 1]
    return 1 - fsum(deviations) / len(deviations) if deviations else None


def _mean_absolute_deviation(values: Sequence[float]) -> float:
    middle = fsum(values) / len(values)
    return fsum(abs(value - middle) for value in values) / len(values)


def _mean(values: Sequence[float]) -> float | None:
    """The mean, exact to the last bit whatever the order; None of nothing."""
    return fsum(values) / len(values) if values else None


def _check(
    counts: Mapping[str, SourceCounts], responses: Iterable[RatedResponse], quarantined: Iterable[Quarantined]
) -> None:
    """Stop unless every incoming row is found in exactly one of the two tables."""
    kept = Counter(source for source, _, _ in {(o.source, o.batch, o.line) for r in responses for o in r.origins})
    refused = Counter(row.source for row in quarantined)
    for source, count in counts.items():
        if count.incoming != kept[source] + refused[source]:
            raise CountsDoNotAddUp(
                f"{source}: {count.incoming} rows came in, {kept[source]} are normalized and {refused[source]} are in"
                " quarantine"
            )
