"""What the soak kills, when it looks for a checkpoint, and what it takes for a difference."""

from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from bench.survival.state import Result, differences, unfinished_checkpoint
from bench.survival.trial import MARKS, STAGES, WAYS, planned

ROOT = Path(__file__).parents[3]
EXPECTED = Result({"dvc.lock": "a", "models/policy/model.safetensors": "b"}, frozenset({"s/1"}), "", "2", 2, "promoted")


def test_every_stage_of_the_pipeline_is_a_part_of_a_run() -> None:
    assert set(STAGES) == set(YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"])


def test_thirty_kills_hit_every_part_and_everybody() -> None:
    kills = planned(30, seed=0)

    assert {kill.phase for kill in kills} == set(MARKS)
    assert {kill.way for kill in kills} == set(WAYS)
    assert {kill.way for kill in kills if kill.phase == "train"} == set(WAYS)
    assert all(kill.phase in STAGES for kill in kills if kill.way in ("dvc", "stage"))
    assert all(0 <= kill.share < 1 for kill in kills)
    assert kills == planned(30, seed=0) != planned(30, seed=1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"files": {"dvc.lock": "a"}}, "other bytes: models/policy/model.safetensors"),
        ({"files": EXPECTED.files | {"reports/more.json": "c"}}, "other bytes: reports/more.json"),
        ({"batches": frozenset({"s/1", "s/2"})}, "batches is"),
        ({"champion": "1"}, "champion is 1, undisturbed 2"),
        ({"versions": 3}, "versions is 3, undisturbed 2"),
        ({"status": " M params.yaml"}, "status is"),
    ],
)
def test_whatever_is_another_is_named(change: dict[str, object], said: str) -> None:
    assert differences(EXPECTED, EXPECTED) == []
    [found] = differences(replace(EXPECTED, **change), EXPECTED)
    assert said in found


def test_a_checkpoint_counts_while_its_training_is_not_finished(tmp_path) -> None:
    for step, mark in ((5, True), (10, True), (15, False)):
        folder = tmp_path / f".amopo/checkpoints/run/checkpoints/checkpoint-{step}"
        folder.mkdir(parents=True)
        if mark:
            (folder / "complete").write_text('{"sizes": {}}')

    assert unfinished_checkpoint(tmp_path) == "checkpoint-10"
    (tmp_path / ".amopo/checkpoints/run/published").touch()
    assert unfinished_checkpoint(tmp_path) is None
