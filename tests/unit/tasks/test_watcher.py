"""The watcher's decisions, with a clock of their own: a look every minute."""

import pytest

from tasks.new_feedback import Waiting
from tasks.operation import Watch
from tasks.watcher import SINCE, Watcher

HOUR = 3600.0
NOON = 1_000_000.0


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def seen(rows=0, picture=None, **other):
    return Waiting(rows=rows, picture=picture if picture is not None else rows, **other)


def test_enough_rows_start_one_at_once_and_too_few_none():
    watcher = Watcher(Watch(min_rows=10), NOON)

    assert watcher.reason(seen(9), NOON, None) is None
    assert watcher.reason(seen(10), NOON + 60, None) == "10 new rows, at least 10 asked for"


def test_rows_of_two_looks_come_together():
    watcher = Watcher(Watch(min_rows=10, max_hours=2.0), NOON)

    assert watcher.reason(seen(1, oldest=NOON), NOON, None) is None
    assert watcher.reason(seen(2, oldest=NOON), NOON + 1.9 * HOUR, None) is None
    assert (
        watcher.reason(seen(2, oldest=NOON), NOON + 2 * HOUR, None)
        == "2 new rows, the first of them waiting for 2 h 0 min"
    )


def test_no_row_starts_nothing_however_long_it_takes():
    assert Watcher(Watch(min_rows=1, max_hours=1.0), NOON).reason(seen(0), NOON + 100 * HOUR, None) is None


def test_a_file_that_grows_holds_back_what_is_enough():
    watcher = Watcher(Watch(min_rows=1, max_hours=1.0), NOON)

    assert watcher.reason(Waiting(growing=("a.jsonl",), picture="a"), NOON + 5 * HOUR, None) is None
    assert watcher.reason(seen(5, oldest=NOON), NOON + 5 * HOUR, None) is not None


def test_the_same_feedback_is_asked_for_once_and_again_when_it_has_waited_long():
    watcher = Watcher(Watch(min_rows=5, max_hours=2.0), NOON)

    assert watcher.reason(seen(5, "kept"), NOON, None)
    assert watcher.reason(seen(5, "kept"), NOON + 1.9 * HOUR, NOON + 60) is None
    assert watcher.reason(seen(6, "another"), NOON + 1.9 * HOUR, NOON + 60)
    assert watcher.reason(seen(6, "another"), NOON + 3.9 * HOUR, NOON + 1.91 * HOUR)


def test_without_a_limit_of_time_the_same_feedback_is_never_asked_for_again():
    watcher = Watcher(Watch(min_rows=5), NOON)

    assert watcher.reason(seen(5), NOON, None)
    assert watcher.reason(seen(5), NOON + 1000 * HOUR, NOON + 60) is None


@pytest.mark.parametrize(("hours", "patience"), [(None, 1), (2.0, 2)])
def test_what_failed_before_it_took_anything_is_asked_for_again_by_the_time_not_by_each_new_row(hours, patience):
    """It may even fail before it notes that it began."""
    for began, failed in ((None, False), (NOON - HOUR, False), (NOON + 60, True)):
        watcher = Watcher(Watch(min_rows=5, max_hours=hours), NOON)
        assert watcher.reason(seen(5), NOON, None)
        for minute in range(1, 60 * patience):
            assert watcher.reason(seen(5 + minute), NOON + 60 * minute, began, last_failed=failed) is None
        assert watcher.reason(seen(999), NOON + patience * HOUR, began, last_failed=failed)


def test_what_failed_with_the_feedback_it_took_is_tried_again_without_any_new_row():
    watcher = Watcher(Watch(min_rows=5), NOON)

    assert watcher.reason(seen(5), NOON, None)
    assert watcher.reason(seen(0), NOON + 0.9 * HOUR, NOON + 60, last_failed=True) is None
    again = watcher.reason(seen(0), NOON + 1.1 * HOUR, NOON + 60, last_failed=True)
    assert again == "the last retraining, which began 1 h 5 min ago, did not come to its end"
    assert watcher.reason(seen(0), NOON + 2 * HOUR, NOON + 1.11 * HOUR, last_failed=True) is None
    assert watcher.reason(seen(0), NOON + 2.2 * HOUR, NOON + 1.11 * HOUR, last_failed=True)
    assert watcher.reason(seen(0), NOON + 9 * HOUR, NOON + 2.3 * HOUR) is None


def test_who_writes_without_an_end_holds_back_for_a_limited_time():
    grows = {"growing": ("b.jsonl",)}
    watcher = Watcher(Watch(min_rows=5, max_hours=2.0), NOON)
    alone = Watcher(Watch(max_hours=2.0), NOON)

    assert watcher.reason(seen(5, **grows), NOON, None) is None
    assert watcher.reason(seen(7, **grows), NOON + 1.9 * HOUR, None) is None
    assert watcher.reason(seen(8, **grows), NOON + 2 * HOUR, None) == "8 new rows, at least 5 asked for"
    assert alone.reason(seen(0, **grows), NOON, None) is None
    assert alone.reason(seen(0, **grows), NOON + 2 * HOUR, None) == "b.jsonl: written to for 2 h 0 min without an end"


def test_a_source_that_cannot_count_is_looked_into_some_time_after_the_last_retraining():
    watcher = Watcher(Watch(max_hours=3.0), NOON)
    silent = seen(uncounted=("traces",))

    assert watcher.reason(silent, NOON + 2 * HOUR, NOON) is None
    assert watcher.reason(silent, NOON + 3 * HOUR, NOON + HOUR) is None
    assert "no count of what is new in traces" in str(watcher.reason(silent, NOON + 4 * HOUR, NOON + HOUR))


def test_since_when_rows_of_a_database_wait_outlives_the_watcher():
    watch = Watch(max_hours=2.0)
    Watcher(watch, NOON).reason(seen(1), NOON, None)

    assert Watcher(watch, NOON + HOUR).reason(seen(1), NOON + 1.9 * HOUR, None) is None
    assert Watcher(watch, NOON + HOUR).reason(seen(1), NOON + 2.1 * HOUR, None)


def test_a_clock_that_is_set_back_costs_no_more_than_the_time_waited_so_far():
    """By a day, after the watcher began, rows were seen, and a retraining began."""
    tomorrow = NOON + 24 * HOUR
    watcher = Watcher(Watch(max_hours=2.0), tomorrow)
    silent = seen(uncounted=("traces",))
    watcher.reason(seen(1, oldest=tomorrow), tomorrow, None)

    assert watcher.reason(seen(1, oldest=tomorrow), NOON, tomorrow) is None
    assert watcher.reason(seen(1, oldest=tomorrow), NOON + 2 * HOUR, tomorrow)
    assert watcher.reason(silent, NOON + 2 * HOUR, tomorrow)
    assert watcher.reason(silent, NOON + 1 * HOUR, tomorrow) is None
    assert watcher.reason(silent, NOON + 3 * HOUR, tomorrow)


def test_rows_that_were_taken_leave_nothing_to_remember():
    watcher = Watcher(Watch(max_hours=2.0), NOON)
    watcher.reason(seen(1), NOON, None)
    watcher.reason(seen(0), NOON + HOUR, None)

    assert not SINCE.exists()
    assert watcher.reason(seen(1), NOON + 2.5 * HOUR, None) is None
