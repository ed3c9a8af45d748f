import pytest

from amopo_core.config import Score
from amopo_core.data.ratings import common_score
from amopo_core.data.tables import score_gap


def test_rounding_parts_no_tie():
    """Raters who say 1 and 7 on [0, 10] and one who says 4: 2.6 either way, 4e-16 apart in floating point."""
    scale = Score(field="s", scale=(0, 10))
    two_raters = (common_score(1, scale) + common_score(7, scale)) / 2

    assert two_raters != common_score(4, scale)
    assert score_gap(two_raters, common_score(4, scale)) == 0


@pytest.mark.parametrize(
    ("first", "second", "gap"),
    [(5, 1, 4), (1, 5, -4), (2, 2 + 2**-20, -(2**-20)), (2, 2 + 2**-40, 0), (None, 2, None), (2, None, None)],
)
def test_the_gap_is_first_minus_second(first, second, gap):
    assert score_gap(first, second) == gap
