import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from tasks.history import HistoryFollower, Row, batches, read_history


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.history.EVERY", 0.01)


class Receiver:
    """Takes rows, or refuses them while it is down."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.down = False
        self.asked = threading.Event()

    def __call__(self, rows: Sequence[Row]) -> None:
        self.asked.set()
        if self.down:
            raise ConnectionError("nobody is there")
        self.rows += rows


def test_rows_are_handed_on_while_they_are_written(tmp_path: Path) -> None:
    history, receiver = tmp_path / "history.jsonl", Receiver()
    with HistoryFollower(history, receiver) as follower:
        history.write_text('{"step": 1, "loss": 0.5}\n')
        assert receiver.asked.wait(10)
        with history.open("a") as file:
            file.write('{"step": 2, "loss": 0.4}\n{"step": 3, "lo')

    assert receiver.rows == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4}]
    assert follower.sent == 2


def test_what_is_refused_is_offered_again_and_never_twice(tmp_path: Path) -> None:
    history, receiver = tmp_path / "history.jsonl", Receiver()
    receiver.down = True
    with HistoryFollower(history, receiver) as follower:
        history.write_text('{"step": 1, "loss": 0.5}\n')
        assert receiver.asked.wait(10)
        assert follower.sent == 0
        receiver.down = False

    assert receiver.rows == [{"step": 1, "loss": 0.5}]
    assert follower.sent == 1


def test_the_block_ends_well_with_a_receiver_that_stays_down(tmp_path: Path) -> None:
    history, receiver = tmp_path / "history.jsonl", Receiver()
    receiver.down = True
    with HistoryFollower(history, receiver) as follower:
        history.write_text('{"step": 1, "loss": 0.5}\n')

    assert receiver.asked.is_set()
    assert follower.sent == 0


def test_an_earlier_history_is_left_alone(tmp_path: Path) -> None:
    history, receiver = tmp_path / "history.jsonl", Receiver()
    history.write_text('{"step": 1, "loss": 0.5}\n')
    with HistoryFollower(history, receiver):
        pass

    assert receiver.rows == []


def test_a_line_without_its_end_is_not_read(tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    history.write_text('{"step": 1}\n{"step": 2}')

    assert read_history(history) == [{"step": 1}]


def test_a_part_that_is_refused_does_not_send_the_parts_before_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows of two numbers fit into a part; the second part is refused once."""
    monkeypatch.setattr("tasks.history.BATCH", 4)
    history = tmp_path / "history.jsonl"
    taken: list[Row] = []
    refused = threading.Event()

    def receive(rows: Sequence[Row]) -> None:
        if taken and not refused.is_set():
            refused.set()
            raise ConnectionError("nobody is there")
        taken.extend(rows)

    with HistoryFollower(history, receive) as follower:
        history.write_text("".join(f'{{"step": {step}, "loss": 0.5}}\n' for step in range(1, 6)))
        assert refused.wait(10)

    assert [row["step"] for row in taken] == [1, 2, 3, 4, 5]
    assert follower.sent == 5


def test_parts_hold_whole_rows_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.history.BATCH", 4)
    small, large = {"step": 1.0, "loss": 0.5}, dict.fromkeys("abcde", 0.0)

    assert list(batches([small, small, small, large, small])) == [[small, small], [small], [large], [small]]
    assert list(batches([])) == []
