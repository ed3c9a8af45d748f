from pathlib import Path
from tempfile import mkdtemp

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amopo_core.data.pairs import is_conflicting, make_pairs
from amopo_core.data.segments import prompt_position
from amopo_core.data.tables import SPLITS, Pair, read_pairs
from tests.unit.data.conftest import data_params, make

NAMES = ("help", "true", "tone")
SOURCES = {
    "web": {
        "rows": "responses",
        "scores": {name: {"field": name, "scale": [1, 5]} for name in NAMES},
        "overall": {"field": "overall", "scale": [1, 5]},
    },
    "votes": {"rows": "pairs", "rater": "rater", "preferences": {"help": {}, "tone": {"field": "nicer"}}},
}
PAIRS = {
    "order_by": "dimensions",
    "selection": "all",
    "incomparable": "keep",
    "max_per_prompt": 100,
    "validation_share": 0.2,
    "test_share": 0.3,
}


def params_with(**changes):
    params = data_params(SOURCES, NAMES, pairs=PAIRS | changes)
    weights = {"help": 2.0, "true": 1.0, "tone": 0.0}
    dimensions = {name: params.dimensions[name].model_copy(update={"weight": weights[name]}) for name in NAMES}
    return params.model_copy(update={"dimensions": dimensions})


def rated(response, help=None, true=None, tone=None, prompt="p", overall=None):
    return {"prompt": prompt, "response": response, "help": help, "true": true, "tone": tone, "overall": overall}


def vote(first, second, prompt="p", rater=None, **labels):
    return {"prompt": prompt, "chosen": {"response": first}, "rejected": {"response": second}, "rater": rater, **labels}


def made(folder, rows, votes=(), **changes):
    """Pairs and counts, whichever split they are in."""
    params = params_with(**changes)
    feedback = {"web": [rows]} if rows else {}
    return make(folder, feedback | ({"votes": [votes]} if votes else {}), params).pairs(params)


def texts(pairs):
    return {(pair.chosen, pair.rejected) for pair in pairs}


def test_the_weighted_mean_orders_by_hand(folder):
    """a: (2*3 + 5)/3 = 11/3, b: (2*4 + 2)/3 = 10/3: a is better though help, the heavier one, prefers b."""
    [pair], counts = made(folder, [rated("a", 3, 5), rated("b", 4, 2)])

    assert (pair.chosen, pair.rejected) == ("a", "b")
    assert (pair.chosen_scores["help"], pair.rejected_scores["help"]) == (3, 4)
    assert [pair.gap(name) for name in NAMES] == [-1, 3, None]
    assert (pair.weight, counts.conflicting) == (1.0, 1)


def test_only_dimensions_rated_in_both_decide(folder):
    """True is missing in b: help alone orders, though a is worse in true than anything."""
    [pair], _ = made(folder, [rated("a", 3, 1), rated("b", 2)])

    assert (pair.chosen, pair.gap("help"), pair.gap("true")) == ("a", 1.0, None)


def test_the_sources_overall_orders_where_asked_for(folder):
    responses = [rated("a", 5, 5, overall=2.0), rated("b", 1, 1, overall=3.0), rated("c", 1, 1)]

    pairs, counts = made(folder, responses, order_by="overall")

    assert texts(pairs) == {("b", "a")}
    assert counts.undecided == 2


def test_what_has_no_order_is_dropped_and_counted(folder):
    """Of ten twos: a=b tie, a and its respaced copy, b and that copy tie; d and e have only tone, whose weight is 0."""
    responses = [rated("a a", 3, 3), rated("b", 4, 1), rated(" a  a", 3, 3), rated("d", tone=5), rated("e", tone=1)]

    pairs, counts = made(folder, responses)

    assert (len(pairs), counts.tied, counts.duplicates, counts.undecided, counts.unselected) == (0, 2, 1, 7, 0)


def test_rounding_parts_no_tie(folder):
    """2 * 1 + 3.6 and 2 * 1.4 + 2.8: the same in mathematics, apart in floating point."""
    _, counts = made(folder, [rated("a", 1.0, 3.6), rated("b", 1.4, 2.8)])

    assert counts.tied == 1


def test_a_lone_response_is_counted(folder):
    pairs, counts = made(folder, [rated("a", 3)])

    assert (counts.prompts, counts.single_response_prompts, pairs) == (1, 1, [])


def test_comparisons_order_what_has_no_scores(folder):
    """Two of three prefer a: gap 1/3. The nicer one is b, told by a single rater."""
    votes = [vote("a", "b", rater="1"), vote("a", "b", rater="2"), vote("b", "a", rater="3", nicer=1)]

    [pair], counts = made(folder, [], votes)

    assert (pair.chosen, pair.rejected) == ("a", "b")
    assert pair.chosen_scores == {"help": None, "true": None, "tone": None}
    assert pair.preferences == {"help": pytest.approx(1 / 3), "tone": -1.0}
    assert counts.conflicting == 1


def test_scores_come_before_comparisons(folder):
    [pair], _ = made(folder, [rated("a", 2), rated("b", 4)], [vote("a", "b", nicer=1)])

    assert (pair.chosen, pair.gap("help"), pair.preferences) == ("b", 2.0, {"tone": -1.0})


def test_dimensions_that_cancel_out_are_counted_among_the_ties(folder):
    """Help is better by 2, weight 2; true worse by 4, weight 1."""
    _, counts = made(folder, [rated("a", 5, 1), rated("b", 3, 5), rated("c", 3, 5)])

    assert (counts.tied, counts.cancelled) == (3, 2)


def test_pairs_about_which_voters_disagree_weigh_less(folder):
    """Two of three for a: agreement 1/3 of the 0.5 asked for."""
    params = data_params(SOURCES, NAMES, ratings={"min_agreement": 0.5}, pairs=PAIRS)
    votes = [vote("a", "b", rater="1"), vote("a", "b", rater="2"), vote("b", "a", rater="3")]

    [pair], _ = make(folder, {"votes": [votes]}, params).pairs(params)

    assert (pair.chosen, pair.weight) == ("a", pytest.approx(2 / 3))


def test_rows_about_which_voters_disagree_are_refused_where_asked_for(folder):
    ratings = {"min_agreement": 0.5, "below": "quarantine"}
    params = data_params(SOURCES, NAMES, ratings=ratings, pairs=PAIRS)
    votes = [vote("a", "b", rater="1"), vote("a", "b", rater="2"), vote("b", "a", rater="3"), vote("a", "c")]

    done = make(folder, {"votes": [votes]}, params)

    assert [(row["line"], row["reason"]) for row in done.refused] == [(line, "raters_disagree") for line in (1, 2, 3)]
    assert texts(done.pairs(params)[0]) == {("a", "c")}


def test_a_pair_that_would_weigh_nothing_is_none(folder):
    source = SOURCES["web"] | {"rater": "rater"}
    params = data_params({"web": source}, NAMES, ratings={"min_agreement": 0.5}, pairs=PAIRS)
    rows = [rated("a", 5), rated("b", 1) | {"rater": "x"}, rated("b", 5) | {"rater": "y"}]

    pairs, counts = make(folder, {"web": [rows]}, params).pairs(params)

    assert (pairs, counts.disputed) == ([], 1)


def test_any_name_of_a_dimension_will_do(folder):
    names = ("help", "help_second")
    source = {"rows": "responses", "scores": {name: {"field": name, "scale": [1, 5]} for name in names}}
    params = data_params({"web": source}, names, pairs=PAIRS)
    rows = [{"prompt": "p", "response": text, "help": 3, "help_second": score} for text, score in (("a", 1), ("b", 4))]

    [pair], _ = make(folder, {"web": [rows]}, params).pairs(params)

    assert (pair.chosen, pair.gap("help"), pair.gap("help_second")) == ("b", 0.0, 3.0)


def test_of_more_responses_than_can_meet_every_two_are_counted(folder, monkeypatch):
    monkeypatch.setattr("amopo_core.data.pairs._MOST", 4)

    pairs, counts = made(folder, [rated(str(number), 1 + number / 10) for number in range(7)])

    assert (len(pairs), counts.unselected) == (6, 15)


def test_the_same_vote_again_counts_once(folder):
    votes = [vote("a", "b", rater="1"), vote("b", "a", rater="2"), vote("b", "a", rater="2")]

    _, counts = made(folder, [], votes)

    assert counts.tied == 1


def test_incomparable_pairs_can_be_dropped(folder):
    responses = [rated("a", 5, 1), rated("b", 1, 5), rated("c", 1, 1)]

    pairs, counts = made(folder, responses, incomparable="drop")

    assert texts(pairs) == {("a", "c"), ("b", "c")}
    assert (counts.incomparable, counts.conflicting) == (1, 0)


def test_best_worst_is_the_widest_pair(folder):
    pairs, counts = made(folder, [rated(*r) for r in (("a", 1), ("b", 5), ("c", 3), ("d", 2))], selection="best_worst")

    assert texts(pairs) == {("b", "a")}
    assert counts.unselected == 5


def test_adjacent_ones_are_neighbours_in_the_order(folder):
    """5 > 3 > 2 = 2 > 1: both twos are neighbours of 3 and of 1, and tie."""
    responses = [rated(*r) for r in (("a", 1), ("b", 5), ("c", 3), ("d", 2), ("e", 2))]

    pairs, counts = made(folder, responses, selection="adjacent")

    assert texts(pairs) == {("b", "c"), ("c", "d"), ("c", "e"), ("d", "a"), ("e", "a")}
    assert (counts.unselected, counts.tied) == (4, 1)


def test_pareto_pairs_lie_on_different_fronts(folder):
    """Fronts: a, b and c; d; e. Overall a 11/3, b 7/3, c 4, d 3, e 2: b is on a better front than d and yet worse."""
    scores = {"a": (5, 1), "b": (1, 5), "c": (4, 4), "d": (3, 3), "e": (2, 2)}
    responses = [rated(name, *pair, 3) for name, pair in scores.items()]

    pairs, _ = made(folder, responses, selection="pareto")
    first, counts = made(folder, responses, selection="pareto", max_per_prompt=1)

    assert texts(pairs) == {("a", "d"), ("c", "d"), ("a", "e"), ("b", "e"), ("c", "e"), ("d", "e")}
    assert texts(first) <= {("a", "e"), ("b", "e")}  # two fronts apart, and at the uncrowded ends
    assert counts.pairs == 1


def test_fronts_are_those_of_the_dimensions_that_a_prompt_has(folder):
    """Tone is scored nowhere in this prompt: a and b lie on the first front, so that they do not meet."""
    scores = {"a": (5, 2), "b": (4, 5), "c": (3, 1)}
    pairs, _ = made(folder, [rated(name, *pair) for name, pair in scores.items()], selection="pareto")

    assert texts(pairs) == {("a", "c"), ("b", "c")}


def test_the_pairs_that_stay_are_the_first_by_hash(folder):
    responses = [rated(str(number), 1 + number / 10) for number in range(6)]

    every, _ = made(folder, responses)
    some, counts = made(folder, responses, max_per_prompt=4)

    assert len(every) == 15
    assert some == sorted(every, key=lambda pair: pair.pair_id)[:4]
    assert counts.unselected == 11


def test_a_pair_keeps_its_name_when_it_turns_around(folder):
    [before], _ = made(folder, [rated("a", 3), rated("b", 4)])
    [after], _ = made(folder, [rated("a", 3), rated("b", 2)])

    assert (before.chosen, after.chosen) == ("b", "a")
    assert before.pair_id == after.pair_id


def test_a_pair_weighs_as_much_as_its_weaker_side(folder):
    """b's raters agree by 0.5 of the 0.8 asked for."""
    params = data_params(
        {"web": SOURCES["web"] | {"rater": "rater"}}, NAMES, ratings={"min_agreement": 0.8}, pairs=PAIRS
    )
    rows = [rated("a", 5), rated("b", 1) | {"rater": "x"}, rated("b", 3) | {"rater": "y"}]

    [pair], _ = make(folder, {"web": [rows]}, params).pairs(params)

    assert pair.weight == pytest.approx(0.625)


def test_the_manifest_names_the_rows_behind_the_pairs(folder):
    """Line 3 is a lone response: no pair, not in the manifest."""
    params = params_with()
    rows = [rated("a", 3), rated("b", 4), rated("alone", 4, prompt="q"), rated("a", 2)]
    done = make(folder, {"web": [rows]}, params)
    done.pairs(params)

    [manifest] = done.folder.glob("*/manifest.parquet")
    table = pl.read_parquet(manifest)
    assert table["line"].to_list() == [1, 2, 4]
    assert set(table["source"]) == {"web"}


@pytest.mark.parametrize(
    ("chosen", "rejected", "preferences", "conflicting"),
    [
        ((5, 1), (1, 5), {}, True),
        ((5, 3), (1, 3), {}, False),
        ((5, None), (1, 5), {}, False),
        ((5, None), (1, 5), {"true": -1.0}, True),
        ((2, 2), (1, 1), {}, False),
        ((5, 1.4), (1, 1.4000000001), {}, False),
    ],
)
def test_dimensions_conflict_when_each_side_is_preferred_once(chosen, rejected, preferences, conflicting):
    names = ("help", "true")
    scores = dict(zip(names, chosen, strict=True)), dict(zip(names, rejected, strict=True))

    assert is_conflicting(Pair("id", "p", user("p"), "a", "b", *scores, preferences)) == conflicting


def user(text):
    return [{"role": "user", "content": text}]


def test_shares_of_the_splits_by_hand():
    """10,000 prompts at 0.3: the standard deviation of a share is below 0.5 %."""
    places = [prompt_position(user(f"prompt {number}")) for number in range(10_000)]

    assert sum(place < 0.3 for place in places) / 10_000 == pytest.approx(0.3, abs=0.02)
    assert min(places) >= 0 and max(places) < 1


@pytest.mark.parametrize("twin", ["what is  it?\n", " WHAT IS IT?", "What\tis it?"])
def test_prompts_that_differ_in_case_or_space_are_on_one_side(twin):
    assert prompt_position(user(twin)) == prompt_position(user("What is it?"))
    assert prompt_position(user("What is it")) != prompt_position(user("What is it?"))


half_points = st.none() | st.integers(2, 10).map(lambda doubled: doubled / 2)
names = st.sampled_from("abcdef")
prompts = st.sampled_from(["p", "q", "r", "s"])
response_rows = st.lists(st.builds(rated, names, half_points, half_points, half_points, prompts), max_size=20)
vote_rows = st.lists(st.builds(vote, names, names, prompts, nicer=st.none() | st.sampled_from([-1, 0, 1])), max_size=8)
quick = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(before=response_rows, more=response_rows)
def test_a_prompt_never_changes_sides_as_feedback_grows(folder, before, more):
    params = params_with()
    small, large = (
        {split: {pair.prompt_id for pair in pairs} for split, pairs in by_split(folder, rows, params).items()}
        for rows in (before or [rated("a", 1)], [*(before or [rated("a", 1)]), *more])
    )

    for split in SPLITS:
        assert not small[split] & set().union(*(large[other] for other in SPLITS if other != split))


def by_split(folder, rows, params):

    done, out = make(folder, {"web": [rows]}, params), Path(mkdtemp(dir=folder))
    make_pairs(done.folder / "normalized", params.dimensions, params.pairs, out)
    return {split: read_pairs(out / f"{split}.parquet") for split in SPLITS}


@quick
@given(
    rows=response_rows,
    votes=vote_rows,
    selection=st.sampled_from(["all", "best_worst", "adjacent", "pareto"]),
    incomparable=st.sampled_from(["keep", "drop"]),
    max_per_prompt=st.integers(1, 3),
)
def test_every_two_responses_of_a_prompt_are_counted_once(folder, rows, votes, selection, incomparable, max_per_prompt):
    params = params_with(selection=selection, incomparable=incomparable, max_per_prompt=max_per_prompt)
    rows = rows or [rated("a", 1)]
    done = make(folder, {"web": [rows], "votes": [votes]} if votes else {"web": [rows]}, params)

    pairs, counts = done.pairs(params)

    sizes = {}
    for response in done.responses:
        sizes[response["prompt_id"]] = sizes.get(response["prompt_id"], 0) + 1
    fates = ("pairs", "tied", "duplicates", "undecided", "incomparable", "unselected", "disputed")
    assert sum(vars(counts)[fate] for fate in fates) == sum(size * (size - 1) // 2 for size in sizes.values())
    assert counts.pairs == len(pairs)
    assert counts.prompts == len(sizes)
    per_prompt = {}
    for pair in pairs:
        gaps = {name: pair.gap(name) for name in ("help", "true")}
        weights = {"help": 2.0, "true": 1.0}
        assert sum(weights[name] * gap for name, gap in gaps.items() if gap is not None) > 0
        assert incomparable == "keep" or not is_conflicting(pair)
        per_prompt[pair.prompt_id] = per_prompt.get(pair.prompt_id, 0) + 1
    assert max(per_prompt.values(), default=0) <= max_per_prompt
