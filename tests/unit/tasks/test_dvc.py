"""What DVC's last lines mean: each text as DVC 3.67 wrote it."""

import pytest

from amopo_core.errors import UserError
from tasks.dvc import RepositoryBusy, failure
from tasks.errors import OutsideError

COMMAND = "exec python -m amopo_core.stages.train --pairs data/pairs"


def failed(status: int) -> str:
    return f"ERROR: failed to reproduce 'train': failed to run: {COMMAND}, exited with {status}"


def test_a_users_mistake_keeps_the_stages_own_words() -> None:
    lines = ["Running stage 'train':", f"> {COMMAND}", "step 1", "error: no such key", "   (line: x)", failed(2)]

    error = failure("train", lines)

    assert isinstance(error, UserError)
    assert str(error) == "stage train: no such key\n   (line: x)"


def test_a_crash_shows_the_last_lines() -> None:
    error = failure("train", ["> exec python", "Traceback", "ZeroDivisionError", failed(1)])

    assert isinstance(error, OutsideError)
    assert "exit status 1" in str(error)
    assert "ZeroDivisionError" in str(error)


def test_a_full_disk_is_no_users_mistake() -> None:
    error = failure("train", ["error: the disk is full: free some space", failed(1)])

    assert not isinstance(error, UserError)
    assert str(error) == "stage train failed with exit status 1: the disk is full: free some space"


@pytest.mark.parametrize(
    "line",
    [
        "ERROR: Unable to acquire lock. Most likely another DVC process is running or was terminated abruptly.",
        "ERROR: '/home/data/pairs' is busy, it is being blocked by:",
    ],
)
def test_a_busy_repository_may_be_tried_again(line: str) -> None:
    assert isinstance(failure("train", [line]), RepositoryBusy)


def test_a_stage_that_talks_of_locks_is_not_tried_again() -> None:
    error = failure("train", ["cannot acquire lock of the GPU", failed(1)])

    assert not isinstance(error, RepositoryBusy)


def test_what_dvc_itself_refuses_is_said() -> None:
    error = failure("train", ["ERROR: failed to reproduce 'train': missing data 'source': models/base"])

    assert isinstance(error, OutsideError)
    assert "missing data" in str(error)
