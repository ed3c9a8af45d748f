"""The launch files, and what becomes of them on this machine."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from amopo_core.errors import UserError
from amopo_core.training.launch import launch_command, launch_file, machine_rank, ranks_of, read_launch

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "configs/accelerate").glob("*.yaml"))
RANKS = {
    "cpu": 1, "cpu-two-ranks": 2, "one-gpu": 1, "ddp": 8, "fsdp2": 8, "zero3": 8, "multi-node": 16,
}  # fmt: skip
OF_MACHINES = ("MACHINE_RANK", "NUM_MACHINES", "MASTER_ADDR", "MASTER_PORT", "SLURM_NODEID", "SLURM_NNODES")


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in OF_MACHINES:
        monkeypatch.delenv(name, raising=False)


def write(folder, **changes):
    keys = {"distributed_type": "MULTI_GPU", "num_machines": 1, "num_processes": 2} | changes
    path = folder / "launch.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))
    return path


def two_machines(monkeypatch, **changes):
    given = {"MACHINE_RANK": "1", "MASTER_ADDR": "node7", "MASTER_PORT": "29511"} | changes
    for name, value in given.items():
        monkeypatch.setenv(name, value)


def option(command, name):
    return command[command.index(name) + 1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_launch_file_is_accelerates_own_and_says_when_to_use_it(path):
    config = load_config_from_file(str(path))

    assert config.num_processes == ranks_of(path) == RANKS[path.stem]
    assert config.distributed_type.value == read_launch(path).kind
    assert path.read_text().startswith("# ")


def test_sharded_weights_come_together_in_the_published_folder():
    fsdp, zero = (load_config_from_file(str(ROOT / f"configs/accelerate/{name}.yaml")) for name in ("fsdp2", "zero3"))

    assert fsdp.fsdp_config["fsdp_version"] == 2
    assert fsdp.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    assert zero.deepspeed_config["zero3_save_16bit_model"] is True
    assert zero.deepspeed_config["gradient_accumulation_steps"] == 1


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "true", "null"])
def test_a_number_of_processes_that_starts_nothing_is_refused(tmp_path, value):
    with pytest.raises(UserError, match=r"num_processes is .*; expected a whole number from 1"):
        ranks_of(write(tmp_path, num_processes=value))


def test_machines_that_do_not_share_alike_are_refused(tmp_path):
    with pytest.raises(UserError, match="num_processes is 3 on num_machines 2"):
        ranks_of(write(tmp_path, num_machines=2, num_processes=3))


@pytest.mark.parametrize("content", ["- a\n- b\n", "", "distributed_type: 'NO'\n", "text"])
def test_what_is_no_launch_file_is_refused(tmp_path, content):
    path = tmp_path / "launch.yaml"
    path.write_text(content)

    with pytest.raises(UserError, match="names no num_processes"):
        ranks_of(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not here"):
        ranks_of(tmp_path / "launch.yaml")


def test_the_file_is_one_cpu_process_unless_named(monkeypatch):
    monkeypatch.delenv("AMOPO_LAUNCH", raising=False)
    assert launch_file() == Path("configs/accelerate/cpu.yaml")

    monkeypatch.setenv("AMOPO_LAUNCH", "mine.yaml")
    assert launch_file() == Path("mine.yaml")


def test_one_machine_needs_nothing_of_its_environment(tmp_path, monkeypatch):
    """Slurm sets its variables in an allocation of several machines also for what runs on one of them."""
    path = write(tmp_path)
    monkeypatch.setenv("SLURM_NNODES", "4")
    monkeypatch.setenv("SLURM_NODEID", "3")
    command = launch_command(path, 5, ["some.module", "--out", "here"])

    assert command[:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    assert command[-4:] == ["-m", "some.module", "--out", "here"]
    assert option(command, "--config_file") == str(path)
    assert option(command, "--num_cpu_threads_per_process") == "5"
    assert option(command, "--main_process_port") == "0"
    assert "--machine_rank" not in command
    assert (machine_rank(path), ranks_of(path)) == (0, 2)


def test_several_machines_meet_where_the_environment_says(tmp_path, monkeypatch):
    path = write(tmp_path, num_machines=2, num_processes=6)
    two_machines(monkeypatch)
    command = launch_command(path, 1, ["some.module"])

    assert machine_rank(path) == 1
    assert option(command, "--machine_rank") == "1"
    assert option(command, "--num_machines") == "2"
    assert option(command, "--num_processes") == "6"
    assert option(command, "--main_process_ip") == "node7"
    assert option(command, "--main_process_port") == "29511"


def test_slurm_says_how_many_machines_there_are_and_which_this_is(tmp_path, monkeypatch):
    """3 processes a machine, by the file; 4 machines, by Slurm."""
    path = write(tmp_path, num_machines=2, num_processes=6)
    two_machines(monkeypatch, MACHINE_RANK="", SLURM_NODEID="3", SLURM_NNODES="4")
    command = launch_command(path, 1, ["some.module"])

    assert ranks_of(path) == 12
    assert option(command, "--num_processes") == "12"
    assert option(command, "--machine_rank") == "3"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"MACHINE_RANK": ""}, "MACHINE_RANK is not set"),
        ({"MACHINE_RANK": "2"}, "MACHINE_RANK is 2; .* 0 to 1"),
        ({"MACHINE_RANK": "first"}, "MACHINE_RANK is first"),
        ({"NUM_MACHINES": "many"}, "NUM_MACHINES is 'many'"),
        ({"NUM_MACHINES": "0"}, "NUM_MACHINES is '0'"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
        ({"MASTER_PORT": "any"}, "MASTER_PORT is any"),
    ],
)
def test_what_the_environment_lacks_is_named(tmp_path, monkeypatch, changes, said):
    two_machines(monkeypatch, **changes)

    with pytest.raises(UserError, match=said):
        launch_command(write(tmp_path, num_machines=2), 1, ["some.module"])


def test_yaml_that_does_not_parse_is_named_with_its_line(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("num_processes: 1\na: [1,\n")

    with pytest.raises(UserError, match=r"bad\.yaml:3: no valid YAML"):
        read_launch(path)


def test_a_kind_of_training_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"distributed_type is 'MULTIGPU'; expected one of NO, MULTI_CPU, MULTI_GPU, "):
        ranks_of(write(tmp_path, distributed_type="MULTIGPU"))


def test_a_folder_is_no_launch_file(tmp_path):
    with pytest.raises(UserError, match="is a folder; name one of its files"):
        ranks_of(tmp_path)


@pytest.mark.skipif(find_spec("deepspeed") is not None, reason="deepspeed is installed")
def test_deepspeed_that_is_not_installed_is_said_before_the_launch(tmp_path):
    with pytest.raises(UserError, match=r"needs deepspeed, which is not installed: pip install -c constraints.txt"):
        launch_command(write(tmp_path, distributed_type="DEEPSPEED"), 1, ["module"])
