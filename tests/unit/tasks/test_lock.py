from pathlib import Path

import pytest

from tasks.lock import Lock, read_lock

TRAIN = {
    "cmd": "python",
    "deps": [{"path": "data/pairs", "md5": "1.dir"}],
    "outs": [{"path": "models/policy", "md5": "2.dir"}, {"path": "reports/train/history.jsonl", "md5": "3"}],
}


def test_digests_by_path() -> None:
    lock = Lock({"train": TRAIN})

    assert lock.output("train", "models/policy") == "2.dir"
    assert lock.dependency("train", "data/pairs") == "1.dir"


@pytest.mark.parametrize("stage", ["evaluate-champion", "guardrails", "normalize"])
def test_what_makes_no_other_policy_does_not_change_the_digest(stage: str) -> None:
    assert Lock({"train": TRAIN}).digest == Lock({"train": TRAIN, stage: {"cmd": "other"}}).digest


def test_any_other_change_does() -> None:
    digest = Lock({"train": TRAIN}).digest

    assert Lock({"train": TRAIN | {"params": {"objective": {"beta": 2}}}}).digest != digest
    assert Lock({"train": TRAIN, "evaluate": {}}).digest != digest


def test_the_order_in_the_file_does_not_matter(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("schema: '2.0'\nstages:\n  base: {cmd: x, outs: []}\n  train: {cmd: y}\n")
    other.write_text("schema: '2.0'\nstages:\n  train: {cmd: y}\n  base: {outs: [], cmd: x}\n")

    assert read_lock(one).digest == read_lock(other).digest


def test_before_the_first_run_there_is_no_stage(tmp_path: Path) -> None:
    assert read_lock(tmp_path / "dvc.lock") == Lock({})
