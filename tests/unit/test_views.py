import pytest

from amopo_core.config import Dimension, Views
from amopo_core.data.tables import Pair
from amopo_core.views import View, instruction, instruction_behind, instruction_of_form, target_score, views_of

DIMENSIONS = {
    "helpfulness": Dimension(description="helps", weight=1),
    "correctness": Dimension(description="is right", weight=1),
}


def pair(chosen, rejected, **preferences):
    names = list(DIMENSIONS)
    return Pair(
        "p", "q", [{"role": "user", "content": "Q"}], "a", "b",
        dict(zip(names, chosen, strict=True)), dict(zip(names, rejected, strict=True)), preferences,
    )  # fmt: skip


def test_each_view_names_its_own_dimension_only():
    """The published code mutates one dict in a loop, so that view 4 contains the instructions of views 1 to 3."""
    generic, helpful, correct = views_of(pair((5, 2), (1, 1)), DIMENSIONS, Views(generic=True, pair_order="overall"))

    assert generic.instruction == "Aim for high scores in helpfulness, correctness.\n\n"
    assert helpful.instruction == "Aim for helpfulness 5 of 5: helps.\n\n"
    assert correct.instruction == "Aim for correctness 2 of 5: is right.\n\n"


def test_the_instruction_ends_with_a_separator():
    assert instruction("helpfulness", 4, DIMENSIONS).endswith("\n\n")


def test_behind_a_text_the_separator_stands_before_the_instruction():
    assert instruction_behind(instruction("helpfulness", 4, DIMENSIONS)) == "\n\nAim for helpfulness 4 of 5: helps."


def test_overall_order_names_the_chosen_score_also_where_it_is_the_lower_one():
    views = views_of(pair((2, 5), (4, 5)), DIMENSIONS, Views(generic=False, pair_order="overall"))

    assert [view.swapped for view in views] == [False, False]
    assert "helpfulness 2 of 5" in views[0].instruction


def test_per_dimension_order_swaps_reversed_views_and_leaves_ties_out():
    helpful, correct = views_of(pair((2, 5), (4, 5)), DIMENSIONS, Views(generic=False, pair_order="per_dimension"))

    assert helpful.swapped
    assert "helpfulness 4 of 5" in helpful.instruction
    assert correct is None


def test_rounding_orders_no_view():
    views = views_of(
        pair((3, 2.6), (2, 2.6000000000000005)), DIMENSIONS, Views(generic=False, pair_order="per_dimension")
    )

    assert views[1] is None


@pytest.mark.parametrize("order", ["overall", "per_dimension"])
def test_a_missing_score_makes_a_view_inactive(order):
    helpful, correct = views_of(pair((None, 5), (None, 4)), DIMENSIONS, Views(generic=False, pair_order=order))

    assert helpful is None
    assert correct is not None


@pytest.mark.parametrize("order", ["overall", "per_dimension"])
def test_a_preference_without_scores_gives_a_view_that_names_no_score(order):
    compared = pair((None, 5), (None, 1), helpfulness=0.5)
    helpful, correct = views_of(compared, DIMENSIONS, Views(generic=False, pair_order=order))

    assert helpful == View("Aim for high helpfulness: helps.\n\n", swapped=False)
    assert correct == View("Aim for correctness 5 of 5: is right.\n\n", swapped=False)


def test_a_preference_for_rejected_swaps_per_dimension_and_is_silent_overall():
    """Overall the view would ask for high helpfulness and show the less helpful response as the better one."""
    compared = pair((None, 5), (None, 1), helpfulness=-2.0)
    [per_dimension, _] = views_of(compared, DIMENSIONS, Views(generic=False, pair_order="per_dimension"))
    [overall, _] = views_of(compared, DIMENSIONS, Views(generic=False, pair_order="overall"))

    assert per_dimension == View("Aim for high helpfulness: helps.\n\n", swapped=True)
    assert overall is None


@pytest.mark.parametrize("order", ["overall", "per_dimension"])
def test_a_preference_for_neither_makes_a_view_inactive(order):
    helpful, _ = views_of(
        pair((None, 5), (None, 1), helpfulness=0.0), DIMENSIONS, Views(generic=False, pair_order=order)
    )

    assert helpful is None


def test_a_score_of_the_preferred_response_is_named_beside_a_preference():
    views = Views(generic=False, pair_order="per_dimension")
    [chosen, _] = views_of(pair((4, 5), (None, 1), helpfulness=1.0), DIMENSIONS, views)
    [rejected, _] = views_of(pair((None, 5), (2, 1), helpfulness=-1.0), DIMENSIONS, views)

    assert chosen == View("Aim for helpfulness 4 of 5: helps.\n\n", swapped=False)
    assert rejected == View("Aim for helpfulness 2 of 5: helps.\n\n", swapped=True)


def test_a_score_of_chosen_alone_is_named_overall_and_orders_nothing_per_dimension():
    half_rated = pair((4, 5), (None, 1))
    [overall, _] = views_of(half_rated, DIMENSIONS, Views(generic=False, pair_order="overall"))
    [per_dimension, _] = views_of(half_rated, DIMENSIONS, Views(generic=False, pair_order="per_dimension"))

    assert overall == View("Aim for helpfulness 4 of 5: helps.\n\n", swapped=False)
    assert per_dimension is None


def test_any_dimension_name_is_taken_also_overall():
    dimensions = {"overall": Dimension(description="is good", weight=1)}
    row = Pair("p", "q", [], "a", "b", {"overall": 3.5}, {"overall": 1.0})
    [view] = views_of(row, dimensions, Views(generic=False, pair_order="overall"))

    assert view.instruction == "Aim for overall 4 of 5: is good.\n\n"


def test_target_scores_round_halves_upwards():
    assert [target_score(score) for score in (1.0, 1.49, 1.5, 2.5, 4.5, 5.0)] == [1, 1, 2, 3, 5, 5]


def test_forms_of_a_prompt():
    assert instruction_of_form("plain", DIMENSIONS) is None
    assert instruction_of_form("all_dimensions", DIMENSIONS) == instruction("all_dimensions", None, DIMENSIONS)
    assert instruction_of_form("correctness@5", DIMENSIONS) == instruction("correctness", 5, DIMENSIONS)
