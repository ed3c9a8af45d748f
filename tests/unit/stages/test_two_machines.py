"""The stage `train` on two machines: here two launchers that meet on the loopback device, one CPU rank each."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from amopo_core.data.tables import Pair, write_pairs
from amopo_core.params_file import override

ROOT = Path(__file__).parents[3]
DIMENSIONS = ["helpfulness", "correctness", "instruction_following"]
SETTINGS = ["runtime.threads=1", "train.batch_pairs=4", "train.max_length=120", "train.epochs=1"]
STAGE = ["--pairs", "pairs", "--base", "base", "--policy", "policy", "--report", "report"]


@pytest.fixture
def workspace(tiny_policy_folder, tmp_path):
    shutil.copytree(tiny_policy_folder, tmp_path / "base")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(ROOT / "tests/params.yaml", tmp_path)
    override(tmp_path / "params.yaml", SETTINGS)
    scores = [dict.fromkeys(DIMENSIONS, score) for score in (5.0, 2.0)]
    pairs = [
        Pair(f"{i:016x}", f"q{i}", [{"role": "user", "content": f"{i}?"}], f"yes {i}", "no" * (i % 3 + 1), *scores)
        for i in range(10)
    ]
    write_pairs(tmp_path / "pairs" / "train.parquet", pairs[:8], DIMENSIONS)
    write_pairs(tmp_path / "pairs" / "validation.parquet", pairs[8:], DIMENSIONS)
    many = (ROOT / "configs/accelerate/multi-node.yaml").read_text()
    (tmp_path / "two.yaml").write_text(many.replace("num_processes: 16", "num_processes: 2"))
    return tmp_path


def start(folder, **environment):
    command = [sys.executable, "-m", "amopo_core.stages.train", *STAGE]
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "MASTER_", "MACHINE_"))}
    return subprocess.Popen(
        command, cwd=folder, env=mine | {"CUDA_VISIBLE_DEVICES": ""} | environment, stderr=subprocess.PIPE, text=True
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_two_machines_train_to_the_weights_of_one_and_the_first_publishes(workspace):
    alone = start(workspace)
    assert alone.communicate(timeout=120)[1] is not None and alone.returncode == 0
    expected = load_file(workspace / "policy" / "model.safetensors")
    meeting = {"AMOPO_LAUNCH": "two.yaml", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    shutil.rmtree(workspace / "policy")
    machines = [start(workspace, **meeting, MACHINE_RANK=number) for number in ("0", "1")]
    said = [machine.communicate(timeout=120)[1] for machine in machines]

    assert [machine.returncode for machine in machines] == [0, 0], said
    assert '"ranks": 2' in (workspace / "report" / "summary.json").read_text()
    assert ("train: step" in said[0], "train: step" in said[1]) == (True, False)
    for name, tensor in load_file(workspace / "policy" / "model.safetensors").items():
        assert_close(tensor, expected[name], rtol=0, atol=1e-5, msg=name)


def test_a_machine_that_does_not_know_which_it_is_exits_2(workspace):
    stopped = start(workspace, AMOPO_LAUNCH="two.yaml", MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    _, said = stopped.communicate(timeout=60)

    assert stopped.returncode == 2
    assert "error: MACHINE_RANK is not set; two.yaml starts 2 machines" in said
    assert "Traceback" not in said
