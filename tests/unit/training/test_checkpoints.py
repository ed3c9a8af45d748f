"""Checkpoints, in this process: when they are made, which are kept, which weights are published."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from amopo_core.atomic import write_json
from amopo_core.config import Adapter
from amopo_core.data.tables import Pair, write_pairs
from amopo_core.errors import UserError
from amopo_core.params_file import read_params
from amopo_core.training import rank
from amopo_core.training.run_folder import (
    COMPLETE,
    INPUTS,
    checkpoint_folder,
    keep_checkpoints,
    last_checkpoint,
    package_versions,
    remove_torn_checkpoints,
)

PARAMS = read_params(Path(__file__).parents[2] / "params.yaml")


def pairs_preferring(better, worse, count, first=0):
    scores = [dict.fromkeys(PARAMS.dimensions, score) for score in (5.0, 2.0)]
    numbers = range(first, first + count)
    asked = [[{"role": "user", "content": f"{number}?"}] for number in numbers]
    return [
        Pair(f"{number:016x}", f"{number:016x}", prompt, better, worse, *scores)
        for number, prompt in zip(numbers, asked, strict=True)
    ]


@pytest.fixture
def workspace(tmp_path, tiny_policy_folder, monkeypatch):
    """8 pairs to train on, 4 epochs of 2 steps; 2 to validate on that prefer the opposite, so that it gets worse.

    Signals are as before afterwards.
    """
    shutil.copytree(tiny_policy_folder, tmp_path / "base")
    dimensions = list(PARAMS.dimensions)
    write_pairs(tmp_path / "pairs/train.parquet", pairs_preferring("yes", "no", 8), dimensions)
    write_pairs(tmp_path / "pairs/validation.parquet", pairs_preferring("no", "yes", 2, first=8), dimensions)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)


def train(run="run", **settings):
    sections = {"batch_pairs": 4, "epochs": 4, "max_length": 200, "learning_rate": 1e-3, "log_every": 3,
                "validate_every": 2, "checkpoint_every": 100}  # fmt: skip
    runtime = PARAMS.runtime.model_copy(update={"threads": 1})
    params = PARAMS.model_copy(
        update={"train": PARAMS.train.model_copy(update=sections | settings), "runtime": runtime}
    )
    run = Path(run)
    history = run / "history.jsonl"
    rank.train_policy(params, pairs=Path("pairs"), base=Path("base"), run=run, history=history, ranks=1)
    return (run / "policy/model.safetensors").read_bytes(), history.read_bytes()


def validation_losses(run="run"):
    rows = [json.loads(line) for line in (Path(run) / "history.jsonl").open()]
    return {row["step"]: row["validation/loss"] for row in rows if "validation/loss" in row}


def kept(run="run"):
    return sorted(path.parent.name for path in (Path(run) / "checkpoints").glob(f"*/{COMPLETE}"))


def test_checkpoints_by_the_clock_change_neither_weights_nor_history(workspace, monkeypatch):
    made = []
    monkeypatch.setattr("amopo_core.training.trainer.mark_complete", lambda folder: made.append(folder.name))

    assert train("rare", checkpoint_minutes=1000.0) == train("often", checkpoint_minutes=1e-9)
    assert [name for name in made if made.count(name) == 1] == [f"checkpoint-{step}" for step in (1, 3, 4, 5, 6, 7)]


def test_a_run_resumed_between_two_lines_of_the_history_goes_on_to_the_same_bytes(workspace, monkeypatch, capfd):
    """The checkpoint of step 5 holds the sums of steps 4 and 5, which the line of step 6 needs."""
    monkeypatch.setattr("amopo_core.training.trainer.keep_checkpoints", lambda *_: None)
    undisturbed = train(checkpoint_every=5)
    assert kept() == [f"checkpoint-{step}" for step in (2, 5, 8)]
    shutil.rmtree("run/checkpoints/checkpoint-8")
    resumed = train(checkpoint_every=5)

    assert "going on from checkpoint-5 of 8" in capfd.readouterr().err
    assert resumed == undisturbed


def test_the_best_on_validation_and_the_last_are_kept(workspace):
    train()
    losses = validation_losses()

    assert list(losses) == [2, 4, 6, 8]
    assert min(losses, key=losses.get) == 2
    assert kept() == ["checkpoint-2", "checkpoint-8"]


def test_the_best_weights_are_published_where_they_are_asked_for(workspace):
    last, _ = train("last")
    best, _ = train("best", publish="best")

    assert best == Path("last/checkpoints/checkpoint-2/model.safetensors").read_bytes()
    assert best != last


def test_the_best_adapters_are_published_where_they_are_asked_for(workspace):
    adapter = Adapter(rank=2)
    with pytest.raises(FileNotFoundError):  # no whole policy is published
        train(publish="best", adapter=adapter, learning_rate=0.01)
    best = load_file("run/policy/adapter_model.safetensors")
    checkpoints = {step: load_file(f"run/checkpoints/checkpoint-{step}/adapter_model.safetensors") for step in (2, 8)}

    assert min(validation_losses(), key=validation_losses().get) == 2
    assert all(torch.equal(best[name], weight) for name, weight in checkpoints[2].items())
    assert any(not torch.equal(best[name], weight) for name, weight in checkpoints[8].items())


def test_the_best_of_no_validation_is_refused(workspace):
    write_pairs(Path("pairs/validation.parquet"), [], list(PARAMS.dimensions))

    with pytest.raises(UserError, match=r"train\.publish is best, but there is no validation pair"):
        train(publish="best")


def whole(run, step, inputs):
    folder = checkpoint_folder(run / "checkpoints", step)
    folder.mkdir(parents=True)
    write_json(folder / COMPLETE, inputs)
    return folder


def test_a_checkpoint_of_other_inputs_than_its_run_is_refused(tmp_path):
    write_json(tmp_path / INPUTS, {"data": "aa", "code": "cc"})
    whole(tmp_path, 5, {"data": "aa", "code": "cc"})
    assert last_checkpoint(tmp_path / "checkpoints").name == "checkpoint-5"
    whole(tmp_path, 10, {"data": "bb", "code": "cc"})

    with pytest.raises(UserError, match=r"checkpoint-10 belongs to other inputs: data \(then bb, now aa\); restore"):
        last_checkpoint(tmp_path / "checkpoints")


def test_torn_checkpoints_are_removed_and_those_of_other_steps(tmp_path):
    for step in (5, 10, 15):
        whole(tmp_path, step, {})
    (tmp_path / "checkpoints/checkpoint-20").mkdir()
    remove_torn_checkpoints(tmp_path / "checkpoints")
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "checkpoint-10", "checkpoint-15", "checkpoint-5",
    ]  # fmt: skip
    keep_checkpoints(tmp_path / "checkpoints", {5, 15})

    assert kept(tmp_path) == ["checkpoint-15", "checkpoint-5"]


def test_the_packages_of_a_run_are_those_that_it_computes_with():
    with_adapter = PARAMS.train.model_copy(update={"adapter": Adapter(base_bits=4)})

    assert list(package_versions(PARAMS)) == ["torch", "transformers", "accelerate", "tokenizers"]
    assert list(package_versions(PARAMS.model_copy(update={"train": with_adapter})))[4:] == ["peft", "bitsandbytes"]


def test_the_history_counts_passes_over_the_pairs(workspace):
    train(log_every=1)
    rows = map(json.loads, Path("run/history.jsonl").read_text().splitlines())

    assert [row["epoch"] for row in rows if "loss" in row] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]


def test_a_damaged_checkpoint_is_passed_over(workspace):
    train(checkpoint_every=2)
    *_, newest = sorted(Path("run/checkpoints").iterdir(), key=lambda path: int(path.name.rpartition("-")[2]))
    assert last_checkpoint(Path("run/checkpoints")) == newest
    (newest / "optimizer.pt").write_bytes((newest / "optimizer.pt").read_bytes()[:1000])

    assert last_checkpoint(Path("run/checkpoints")) != newest
    remove_torn_checkpoints(Path("run/checkpoints"))
    assert not newest.exists()


def test_a_published_policy_can_be_read_by_others(workspace):
    train()
    new = Path("new")
    new.touch()

    assert {path.stat().st_mode for path in Path("run/policy").iterdir()} == {new.stat().st_mode}


def test_a_resumed_run_says_the_time_and_the_steps_of_all_its_starts(workspace):
    train(checkpoint_every=6, publish="last")
    whole = json.loads(Path("logs/train/summary.json").read_text())
    shutil.rmtree("run/policy")
    keep_checkpoints(Path("run/checkpoints"), [6])
    train(checkpoint_every=6)
    resumed = json.loads(Path("logs/train/summary.json").read_text())

    assert (resumed["steps"], resumed["pairs"], resumed["tokens"]) == (8, 32, whole["tokens"])
    assert resumed["seconds"]["checkpoint"] > 0
    assert sum(resumed["seconds"].values()) == pytest.approx(32 / resumed["pairs_per_second"], rel=0.01)
