"""The stage `train` with adapters: what it publishes, and that a resumed run leaves the same bytes."""

import json
import os
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from amopo_core.errors import UserError
from amopo_core.params_file import override, read_params
from amopo_core.policy import load_policy
from amopo_core.training import rank
from tests.unit.stages.training import SETTINGS, checkpoints, copy_inputs, finished, make_inputs, run, start


def adapters(folder, **settings):
    changed = {"rank": 4} | settings
    override(folder / "params.yaml", [*SETTINGS, "train.learning_rate=0.01", f"train.adapter={json.dumps(changed)}"])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def undisturbed(tiny_policy_folder, tmp_path_factory):
    """A finished run of 24 steps, with dropout."""
    folder = tmp_path_factory.mktemp("undisturbed")
    make_inputs(folder, tiny_policy_folder)
    adapters(folder, dropout=0.1)
    finished(start(folder))
    return folder


@pytest.fixture
def workspace(undisturbed, tmp_path, monkeypatch):
    """The same before it was run."""
    monkeypatch.chdir(copy_inputs(undisturbed, tmp_path / "workspace"))
    return tmp_path / "workspace"


@pytest.fixture
def train_here(workspace):
    """Trains one rank in this process, which loads no library anew; signals are as before afterwards."""

    def train():
        inputs = {"pairs": Path("pairs"), "base": Path("base"), "run": Path("run"), "history": Path("history.jsonl")}
        rank.train_policy(read_params(), **inputs, ranks=1)
        return Path("run/policy")

    yield train
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)


def test_killed_in_training_adapters_go_on_to_the_same_bytes(workspace, undisturbed):
    child = start(workspace, start_new_session=True)
    deadline = time.monotonic() + 120
    while not checkpoints(workspace):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()

    resumed = run(workspace)
    expected = contents(undisturbed / "policy")
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from checkpoint-" in resumed.stderr
    assert contents(workspace / "policy") == expected
    assert {"adapter_config.json", "adapter_model.safetensors", "base.json"} <= expected.keys()
    assert "README.md" not in expected and "training_args.bin" not in expected
    trained = load_file(workspace / "policy/adapter_model.safetensors")
    assert all(weight.abs().sum() > 0 for weight in trained.values())


def test_merged_adapters_are_the_base_with_what_they_add(workspace, undisturbed, monkeypatch):
    adapters(workspace, dropout=0.1, merge=True)
    done = run(workspace)

    assert done.returncode == 0, done.stderr
    assert (workspace / "policy/config.json").is_file()
    assert not list((workspace / "policy").glob("adapter*"))
    merged = load_policy(Path("policy")).model.state_dict()
    monkeypatch.chdir(undisturbed)
    pinned = load_policy(Path("policy")).model.state_dict()
    assert merged.keys() == pinned.keys()
    for name, weight in merged.items():
        assert torch.equal(weight, pinned[name]), name


def test_two_ranks_recomputing_blocks_train_the_same_adapters(workspace, train_here):
    adapters(workspace)
    one = load_file(train_here() / "adapter_model.safetensors")
    override(workspace / "params.yaml", ["train.gradient_checkpointing=true"])
    done = run(workspace, launch="cpu-two-ranks.yaml")

    assert done.returncode == 0, done.stderr
    for name, weight in load_file(workspace / "policy/adapter_model.safetensors").items():
        assert_close(weight, one[name], rtol=1e-2, atol=1e-3, msg=name)


def test_an_unknown_layer_stops_with_those_there_are(workspace, train_here):
    adapters(workspace, target_modules=["query"])

    with pytest.raises(UserError, match=r"train\.adapter\.target_modules: 'query' is no linear layer"):
        train_here()


@pytest.mark.skipif(not find_spec("bitsandbytes"), reason="bitsandbytes is not installed")
def test_a_base_in_4_bits_trains(workspace):
    adapters(workspace, base_bits=4)
    done = run(workspace)

    assert done.returncode == 0, done.stderr
    assert load_policy(Path("policy")).model.dtype == torch.float32
