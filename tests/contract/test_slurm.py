"""The Slurm script runs the stage as dvc.yaml does, with the launch file for several machines."""

import re
import subprocess
from pathlib import Path

from ruamel.yaml import YAML

from amopo_core.training.launch import read_launch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "configs/slurm/train.sbatch"
TEXT = SCRIPT.read_text(encoding="utf-8")


def test_the_script_is_bash() -> None:
    assert subprocess.run(["bash", "-n", SCRIPT], check=False).returncode == 0


def test_the_other_machines_run_the_stage_as_the_first_one_does() -> None:
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    [command] = re.findall(r"(exec python -m amopo_core\.stages\.train .*?)\n'", TEXT, flags=re.DOTALL)

    assert command.replace("\\\n", " ").split() == stages["train"]["cmd"].split()


def test_the_launch_file_is_one_for_several_machines() -> None:
    [path] = re.findall(r"AMOPO_LAUNCH:-(.*?)}", TEXT)

    assert read_launch(ROOT / path).machines == 2
