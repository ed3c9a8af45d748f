from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amopo_core.config import Score, Source
from amopo_core.data.batches import StoredRow
from amopo_core.data.normalize import CountsDoNotAddUp, agreement, normalize
from amopo_core.data.tables import Origin

SCORES = {"help": Score(field="help", scale=(1, 5)), "true": Score(field="true", scale=(1, 5))}
SOURCES = {
    "web": Source(rows="responses", rater="rater", scores=SCORES, overall=Score(field="all", scale=(1, 5))),
    "lab": Source(rows="pairs", scores=SCORES),
}
DIMENSIONS = ["help", "true", "tone"]


def stored(rows, source="web"):
    return [StoredRow(Origin(source, "000001-0123456789ab", line), row) for line, row in enumerate(rows, start=1)]


def response(help=3, true=None, prompt="p", response="r", **more):
    return {"prompt": prompt, "response": response, "help": help, "true": true, **more}


def side(response, help, true=None):
    return {"response": response, "help": help, "true": true}


def test_ratings_of_a_response_are_averaged():
    """Scores by hand: help 2, 4, 3 -> 3; true 5 alone -> 5; overall 1, 4 -> 2.5; tone is rated by no source."""
    rows = [response(2, 5, rater="a", all=1), response(4, rater="b", all=4), response(3, rater="c")]

    [rated] = normalize(stored(rows), SOURCES, DIMENSIONS).responses

    assert rated.scores == {"help": 3.0, "true": 5.0, "tone": None}
    assert (rated.overall, rated.raters) == (2.5, 3)
    assert [origin.line for origin in rated.origins] == [1, 2, 3]


@pytest.mark.parametrize(
    ("given_scores", "expected"),
    [
        ([[3.0]], None),
        ([[], [4.0]], None),
        ([[2.0, 2.0]], 1.0),
        ([[1.0, 5.0]], 0.0),
        ([[2.0, 4.0]], 0.5),  # mean 3, mean absolute deviation 1, half the scale 2
        ([[2.0, 4.0], [3.0, 3.0], [1.0]], 0.75),  # the mean of 0.5 and 0; one rating says nothing
        ([[1.0, 1.0, 4.0]], 1 - (4 / 3) / 2),  # mean 2, deviations 1, 1, 2
    ],
)
def test_agreement_by_hand(given_scores, expected):
    assert agreement(given_scores) == (expected if expected is None else pytest.approx(expected))


def test_exactly_the_same_row_counts_once_and_is_listed():
    rows = [response(1, rater="a"), response(4, rater="b"), response(4, rater="b")]

    result = normalize(stored(rows), SOURCES, DIMENSIONS)

    [rated] = result.responses
    assert (rated.scores["help"], rated.raters) == (2.5, 2)
    assert [origin.line for origin in rated.origins] == [1, 2, 3]
    assert result.counts["web"].duplicates == 1


def test_a_response_met_again_in_another_pair_is_one_rating():
    first = {"prompt": "p", "chosen": side("a", 5), "rejected": side("b", 1)}
    second = {"prompt": "p", "chosen": side("a", 5), "rejected": side("c", 2)}

    result = normalize(stored([first, second], "lab"), SOURCES, DIMENSIONS)

    by_text = {rated.response: rated for rated in result.responses}
    assert {text: rated.raters for text, rated in by_text.items()} == {"a": 1, "b": 1, "c": 1}
    assert [origin.line for origin in by_text["a"].origins] == [1, 2]
    assert result.counts["lab"].duplicates == 0


def test_sources_meet_in_the_same_response():
    web = stored([response(2)])
    lab = stored([{"prompt": "p", "chosen": side("r", 4), "rejected": side("x", 1)}], "lab")

    result = normalize(web + lab, SOURCES, DIMENSIONS)

    assert {rated.response: rated.scores["help"] for rated in result.responses} == {"r": 3.0, "x": 1.0}


def test_every_row_is_counted_with_what_was_accepted():
    rows = [response("4", ""), response(9), response(None), response(2, prompt=None), response(5, 5)]

    result = normalize(stored(rows), SOURCES, DIMENSIONS)

    count = result.counts["web"]
    assert (count.incoming, count.normalized, count.numeric_strings, count.unrated) == (5, 2, 1, 1)
    assert count.quarantined == {"score_outside_scale": 1, "no_scores": 1, "no_prompt": 1}
    assert [(row.line, row.reason, row.row) for row in result.quarantined] == [
        (2, "score_outside_scale", rows[1]),
        (3, "no_scores", rows[2]),
        (4, "no_prompt", rows[3]),
    ]
    assert result.counts["lab"].incoming == 0


def test_a_row_that_got_lost_stops_the_run():
    """Two incoming rows under one origin can only be found once in the tables."""
    twice = stored([response(3)]) + stored([response(4)])

    with pytest.raises(CountsDoNotAddUp, match="web: 2 rows came in, 1 are normalized and 0 are in quarantine"):
        normalize(twice, SOURCES, DIMENSIONS)


texts = st.sampled_from(["a", "b", "", None, 3, ["x"], [{"role": "user", "content": "a"}]])
scores = st.one_of(
    st.integers(-1, 7), st.floats(), st.none(), st.booleans(), st.sampled_from(["2", "", "x", "nan", [1], {"v": 1}])
)
sides = st.fixed_dictionaries({}, optional={"response": texts, "help": scores, "true": scores})
messy_responses = st.fixed_dictionaries(
    {}, optional={"prompt": texts, "response": texts, "help": scores, "true": scores, "all": scores, "rater": texts}
)
messy_pairs = st.fixed_dictionaries({}, optional={"prompt": texts, "chosen": sides | texts, "rejected": sides})


@given(web=st.lists(messy_responses, max_size=12), lab=st.lists(messy_pairs, max_size=6), order=st.randoms())
def test_messy_rows_add_up_in_any_order(web, lab, order):
    rows = stored(web) + stored(lab, "lab")
    shuffled = rows.copy()
    order.shuffle(shuffled)

    result = normalize(rows, SOURCES, DIMENSIONS)

    kept = {origin for rated in result.responses for origin in rated.origins}
    refused = {Origin(row.source, row.batch, row.line) for row in result.quarantined}
    assert kept | refused == {row.origin for row in rows}
    assert not kept & refused
    assert sum((count.quarantined for count in result.counts.values()), Counter()).total() == len(refused)
    for rated in result.responses:
        given_scores = [score for score in rated.scores.values() if score is not None]
        assert given_scores and all(1 <= score <= 5 for score in given_scores)
        assert rated.agreement is None or -1e-12 <= rated.agreement <= 1
    assert repr(normalize(shuffled, SOURCES, DIMENSIONS).responses) == repr(result.responses)
