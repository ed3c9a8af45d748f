import pytest
from hypothesis import given
from hypothesis import strategies as st

from amopo_core.config import Dimension, Pairs
from amopo_core.data.pairs import SPLITS, is_conflicting, make_pairs, overall_gap, split_of
from amopo_core.data.tables import Pair, RatedResponse, text_id

SETTINGS = Pairs(order_by="dimensions", selection="all", max_per_prompt=100, validation_share=0.2, test_share=0.3)
DIMENSIONS = {
    "help": Dimension(description="d", weight=2.0),
    "true": Dimension(description="d", weight=1.0),
    "tone": Dimension(description="d", weight=0.0),
}


def user(text):
    return [{"role": "user", "content": text}]


def rated(response, help=None, true=None, tone=None, prompt="p", overall=None):
    return RatedResponse(
        prompt_id=text_id(user(prompt)),
        prompt=user(prompt),
        response_id=text_id(response),
        response=response,
        scores={"help": help, "true": true, "tone": tone},
        overall=overall,
        raters=1,
        agreement=None,
        origins=[],
    )


def made(responses, **changes):
    """Pairs and counts of one prompt, whichever split it is in."""
    splits = make_pairs(responses, DIMENSIONS, SETTINGS.model_copy(update=changes))
    [split] = [split for split in splits.values() if split.prompts]
    return split


def texts(split):
    return {(pair.chosen, pair.rejected) for pair in split.pairs}


def test_the_weighted_mean_orders_by_hand():
    """a: (2*3 + 5)/3 = 11/3, b: (2*4 + 2)/3 = 10/3: a is better though help, the heavier one, prefers b."""
    split = made([rated("a", 3, 5), rated("b", 4, 2)])

    [pair] = split.pairs
    assert (pair.chosen, pair.rejected) == ("a", "b")
    assert (pair.chosen_scores["help"], pair.rejected_scores["help"]) == (3, 4)
    assert split.conflicting == 1


def test_only_dimensions_rated_in_both_decide():
    """In b, true is missing in b: help alone orders, (2*1)/2 = 1 point."""
    assert overall_gap(rated("a", 3, 1), rated("b", 2), {"help": 2.0, "true": 1.0}, "dimensions") == 1.0


def test_the_sources_overall_orders_where_asked_for():
    responses = [rated("a", 5, 5, overall=2.0), rated("b", 1, 1, overall=3.0), rated("c", 1, 1)]

    split = made(responses, order_by="overall")

    assert texts(split) == {("b", "a")}
    assert split.undecided == 2


def test_what_has_no_order_is_dropped_and_counted():
    """Of ten twos: a=b tie, a and its respaced copy, b and that copy tie; d and e have only tone, whose weight is 0."""
    responses = [rated("a a", 3, 3), rated("b", 4, 1), rated(" a  a", 3, 3), rated("d", tone=5), rated("e", tone=1)]

    split = made(responses)

    assert (len(split.pairs), split.tied, split.duplicates, split.undecided, split.unselected) == (0, 2, 1, 7, 0)


def test_rounding_parts_no_tie():
    """1 + 1.8 and 1.4 + 1.4: the same in mathematics, apart in floating point."""
    weights = {"help": Dimension(description="d", weight=1.0), "true": Dimension(description="d", weight=1.0)}
    first, second = rated("a", 1.0, 1.8), rated("b", 1.4, 1.4)
    assert (1.0 - 1.4) + (1.8 - 1.4) != 0

    splits = make_pairs([first, second], weights, SETTINGS)

    assert sum(split.tied for split in splits.values()) == 1


def test_a_lone_response_is_counted():
    split = made([rated("a", 3)])

    assert (split.prompts, split.single_response_prompts, split.pairs) == (1, 1, [])


def test_best_worst_is_the_widest_pair():
    responses = [rated("a", 1), rated("b", 5), rated("c", 3), rated("d", 2)]

    split = made(responses, selection="best_worst")

    assert texts(split) == {("b", "a")}
    assert split.unselected == 5


def test_the_pairs_that_stay_are_the_first_by_hash():
    responses = [rated(str(number), 1 + number / 10) for number in range(6)]

    every, some = made(responses), made(responses, max_per_prompt=4)

    assert len(every.pairs) == 15
    assert some.pairs == sorted(every.pairs, key=lambda pair: pair.pair_id)[:4]
    assert some.unselected == 11


def test_a_pair_keeps_its_name_when_it_turns_around():
    [before] = made([rated("a", 3), rated("b", 4)]).pairs
    [after] = made([rated("a", 3), rated("b", 2)]).pairs

    assert (before.chosen, after.chosen) == ("b", "a")
    assert before.pair_id == after.pair_id


@pytest.mark.parametrize(
    ("chosen", "rejected", "conflicting"),
    [
        ((5, 1), (1, 5), True),
        ((5, 3), (1, 3), False),
        ((5, None), (1, 5), False),
        ((2, 2), (1, 1), False),
        ((5, 1.4), (1, 1.4000000001), False),
    ],
)
def test_dimensions_conflict_when_each_side_is_preferred_once(chosen, rejected, conflicting):
    names = ("help", "true")
    scores = dict(zip(names, chosen, strict=True)), dict(zip(names, rejected, strict=True))

    assert is_conflicting(Pair("id", "p", user("p"), "a", "b", *scores)) == conflicting


def test_shares_of_the_splits_by_hand():
    """10,000 prompts at 0.3 and 0.2: the standard deviation of a share is below 0.5 %."""
    splits = [split_of(user(f"prompt {number}"), SETTINGS) for number in range(10_000)]

    assert splits.count("test") / 10_000 == pytest.approx(0.3, abs=0.02)
    assert splits.count("validation") / 10_000 == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("twin", ["what is  it?\n", " WHAT IS IT?", "What\tis it?"])
def test_prompts_that_differ_in_case_or_space_are_on_one_side(twin):
    tight = [SETTINGS.model_copy(update={"test_share": share / 100, "validation_share": 0}) for share in range(1, 100)]

    assert [split_of(user("What is it?"), s) for s in tight] == [split_of(user(twin), s) for s in tight]


prompts = st.text(min_size=1, max_size=4)
half_points = st.none() | st.integers(2, 10).map(lambda doubled: doubled / 2)
responses_lists = st.lists(
    st.builds(rated, st.sampled_from("abcdef"), half_points, half_points, half_points, prompts),
    max_size=25,
    unique_by=lambda response: (response.prompt_id, response.response_id),
)


@given(before=responses_lists, more=responses_lists)
def test_a_prompt_never_changes_sides_as_feedback_grows(before, more):
    known = {(response.prompt_id, response.response_id) for response in before}
    grown = before + [r for r in more if (r.prompt_id, r.response_id) not in known]
    small, large = (make_pairs(responses, DIMENSIONS, SETTINGS) for responses in (before, grown))

    for split in SPLITS:
        others = {pair.prompt_id for other in SPLITS if other != split for pair in large[other].pairs}
        assert not {pair.prompt_id for pair in small[split].pairs} & others
        assert {pair.pair_id for pair in small[split].pairs} <= {pair.pair_id for pair in large[split].pairs}


@given(
    responses=responses_lists,
    selection=st.sampled_from(["all", "best_worst"]),
    max_per_prompt=st.integers(1, 3),
    order=st.randoms(),
)
def test_every_two_responses_of_a_prompt_are_counted_once(responses, selection, max_per_prompt, order):
    settings = SETTINGS.model_copy(update={"selection": selection, "max_per_prompt": max_per_prompt})
    shuffled = responses.copy()
    order.shuffle(shuffled)
    sizes = {}
    for response in responses:
        sizes[response.prompt_id] = sizes.get(response.prompt_id, 0) + 1

    splits = make_pairs(responses, DIMENSIONS, settings)

    counted = sum(len(s.pairs) + s.tied + s.duplicates + s.undecided + s.unselected for s in splits.values())
    assert counted == sum(size * (size - 1) // 2 for size in sizes.values())
    assert sum(split.prompts for split in splits.values()) == len(sizes)
    assert make_pairs(shuffled, DIMENSIONS, settings) == splits
    for pair in (pair for split in splits.values() for pair in split.pairs):
        chosen, rejected = (
            next(r for r in responses if (r.prompt_id, r.response) == (pair.prompt_id, text))
            for text in (pair.chosen, pair.rejected)
        )
        assert overall_gap(chosen, rejected, {"help": 2.0, "true": 1.0}, "dimensions") > 0
