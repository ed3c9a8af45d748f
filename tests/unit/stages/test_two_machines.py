"""The stage `train` on two machines: here two launchers that meet on the loopback device, one CPU rank each."""

import os
import socket
import subprocess

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.unit.stages.training import COMMAND, ROOT, copy_inputs


@pytest.fixture
def workspace(trained, tmp_path):
    """A finished run's folder before it was run, and a launch file for two machines."""
    folder = copy_inputs(trained, tmp_path / "workspace")
    many = (ROOT / "configs/accelerate/multi-node.yaml").read_text()
    (folder / "two.yaml").write_text(many.replace("num_processes: 16", "num_processes: 2"))
    return folder


def start(folder, **environment):
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "MASTER_", "MACHINE_"))}
    return subprocess.Popen(
        COMMAND, cwd=folder, env=mine | {"CUDA_VISIBLE_DEVICES": ""} | environment, stderr=subprocess.PIPE, text=True
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_two_machines_train_to_the_weights_of_one_and_the_first_publishes(workspace, trained):
    expected = load_file(trained / "policy" / "model.safetensors")
    meeting = {"AMOPO_LAUNCH": "two.yaml", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
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
