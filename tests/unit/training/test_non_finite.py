"""Steps whose loss or gradient is not finite, in this process: who is named, and what they change."""

import json
import os
import re
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from amopo_core.config import Adapter
from amopo_core.data.tables import Pair, write_pairs
from amopo_core.errors import UserError
from amopo_core.params_file import read_params
from amopo_core.training import rank
from amopo_core.training.non_finite import ROWS, NotFinite

PARAMS = read_params(Path(__file__).parents[2] / "params.yaml")
BAD = 5
"""Place of the pair whose prompt alone holds a Z."""


@pytest.fixture
def workspace(tmp_path, tiny_policy_folder, monkeypatch):
    """8 pairs, 2 steps; the tiny policy with a head of its own. Signals are as before afterwards."""
    tied = AutoModelForCausalLM.from_pretrained(tiny_policy_folder)
    tied.config.tie_word_embeddings = False
    untied = type(tied)(tied.config)
    untied.load_state_dict(tied.state_dict())
    untied.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tiny_policy_folder).save_pretrained(tmp_path / "base")
    scores = [dict.fromkeys(PARAMS.dimensions, score) for score in (5.0, 2.0)]
    prompts = [f"{'Z' if number == BAD else 'y'}{number}?" for number in range(8)]
    pairs = [
        Pair(f"{number:016x}", f"{number:016x}", [{"role": "user", "content": prompt}], f"yes {number}", "no", *scores)
        for number, prompt in enumerate(prompts)
    ]
    write_pairs(tmp_path / "pairs/train.parquet", pairs, list(PARAMS.dimensions))
    write_pairs(tmp_path / "pairs/validation.parquet", pairs[:2], list(PARAMS.dimensions))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)


def params(**train):
    sections = {"batch_pairs": 4, "max_length": 200, "learning_rate": 1e-3, "log_every": 1, "weight_decay": 0.1} | train
    runtime = PARAMS.runtime.model_copy(update={"threads": 1})
    return PARAMS.model_copy(update={"train": PARAMS.train.model_copy(update=sections), "runtime": runtime})


def train(**settings):
    rank.train_policy(
        params(**settings), pairs=Path("pairs"), base=Path("base"), run=Path("run"), history=Path("h.jsonl"), ranks=1
    )


def token_of(letter):
    return AutoTokenizer.from_pretrained("base")(letter)["input_ids"][0]


@pytest.fixture
def spoilt_loss(workspace, monkeypatch):
    """Z's embedding is infinite: the losses of every view of the pair are not finite."""
    build, token = rank.build_trainer, token_of("Z")

    def build_spoilt(params, policy, *args, **options):
        trainer = build(params, policy, *args, **options)
        with torch.no_grad():
            policy.model.get_input_embeddings().weight[token] = float("inf")
        return trainer

    monkeypatch.setattr(rank, "build_trainer", build_spoilt)


@pytest.fixture
def spoilt_gradient(workspace, monkeypatch):
    """The policy is sound, but the gradient of Z's embedding is infinite where it is not 0."""
    load, token = rank.load_trainable, token_of("Z")

    def spoilt(gradient):
        row = gradient.clone()
        row[token] = torch.where(gradient[token] == 0, 0.0, float("inf"))
        return row

    def load_spoilt(*args):
        policy = load(*args)
        policy.model.get_input_embeddings().weight.register_hook(spoilt)
        return policy

    monkeypatch.setattr(rank, "load_trainable", load_spoilt)


def test_a_loss_that_is_not_finite_stops_and_names_pair_and_views(spoilt_loss):
    views = ", ".join(PARAMS.view_names)

    with pytest.raises(
        NotFinite, match=rf"step \d: the loss is not finite, pairs {BAD:016x} \({re.escape(views)}\)\. "
    ):
        train()
    assert not Path("run/policy").exists()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_gradient_that_is_not_finite_stops_and_names_pair_and_views(spoilt_gradient, checkpointing):
    views = ", ".join(PARAMS.view_names)

    with pytest.raises(
        NotFinite, match=rf"step \d: the gradient is not finite, pairs {BAD:016x} \({re.escape(views)}\)\. "
    ):
        train(gradient_checkpointing=checkpointing)


def test_a_step_that_is_skipped_changes_no_weight_and_no_mean(spoilt_gradient, capfd):
    """Two steps, one of them skipped: the weights are those of the other alone, weight decay included."""
    train(non_finite="skip")
    said = capfd.readouterr().err
    rows = [json.loads(line) for line in Path("h.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "learning_rate" in row]
    skipped = next(row["step"] for row in steps if "loss" not in row)
    trained, base = load_file("run/policy/model.safetensors"), load_file("base/model.safetensors")

    assert len(steps) == 2
    assert f"train: step {skipped} skipped: the gradient is not finite, pairs {BAD:016x} (" in said
    assert json.loads(Path("run/summary.json").read_text())["steps_skipped"] == 1
    assert [json.loads(line) for line in ROWS.open()] == [
        {"run": "run", "step": skipped, "what": "gradient", "pairs": {f"{BAD:016x}": list(PARAMS.view_names)}}
    ]
    assert all(weight.isfinite().all() for weight in trained.values())
    assert any((trained[name] != base[name]).any() for name in base)


def test_where_every_step_is_skipped_nothing_changes(workspace, monkeypatch):
    load = rank.load_trainable

    def load_spoilt(*args):
        policy = load(*args)
        policy.model.get_output_embeddings().weight.register_hook(lambda gradient: gradient * float("nan"))
        return policy

    monkeypatch.setattr(rank, "load_trainable", load_spoilt)
    train(non_finite="skip")
    trained, base = load_file("run/policy/model.safetensors"), load_file("base/model.safetensors")

    assert json.loads(Path("run/summary.json").read_text())["steps_skipped"] == 2
    assert all(torch.equal(trained[name], base[name]) for name in base)


def test_skipping_with_deepspeed_is_refused(workspace, monkeypatch):
    monkeypatch.setitem(os.environ, "ACCELERATE_USE_DEEPSPEED", "true")

    with pytest.raises(UserError, match=r"train\.non_finite is skip, but DeepSpeed changes the weights before"):
        rank.refuse_misfits(params(non_finite="skip"), validation_pairs=2)
    rank.refuse_misfits(params(), validation_pairs=2)


def test_four_bits_cannot_be_sharded(workspace, monkeypatch):
    four_bits = params(adapter=Adapter(base_bits=4))
    rank.refuse_misfits(four_bits, validation_pairs=2)
    monkeypatch.setitem(os.environ, "ACCELERATE_USE_FSDP", "true")

    with pytest.raises(UserError, match=r"train\.adapter\.base_bits is 4, but the launch file shards the weights"):
        rank.refuse_misfits(four_bits, validation_pairs=2)


def test_a_launch_file_for_gpus_is_refused_where_there_is_none(workspace, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(os.environ, "ACCELERATE_USE_CPU", "True")
    rank.refuse_misfits(params(), validation_pairs=2)
    monkeypatch.setitem(os.environ, "ACCELERATE_USE_CPU", "False")

    with pytest.raises(UserError, match="the launch file asks for a GPU, and torch finds none here"):
        rank.refuse_misfits(params(), validation_pairs=2)
