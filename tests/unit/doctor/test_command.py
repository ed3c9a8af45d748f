"""`amopo doctor` as a process."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def clone(tmp_path):
    """The project as cloned: no data, no models."""
    for name in ("params.yaml", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    return tmp_path


def doctor(folder, *arguments, launch="configs/accelerate/cpu.yaml"):
    environment = os.environ | {"AMOPO_LAUNCH": launch, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "flows.cli", "doctor", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_a_clone_without_data_or_models_is_well(clone):
    ended = doctor(clone, "--json")
    said = json.loads(ended.stdout)

    assert (ended.returncode, said["wrong"]) == (0, False), ended.stdout
    topics = {finding["topic"] for finding in said["findings"]}
    assert topics == {
        *("parameters", "launch", "devices", "ranks", "precision", "kernels", "disk", "versions", "base"),
    }
    assert {finding["status"] for finding in said["findings"]} <= {"ok", "warn"}


def test_what_is_wrong_ends_with_1_and_without_a_traceback(clone):
    (clone / "params.yaml").write_text("train: 3\n")
    ended = doctor(clone, launch="nowhere.yaml")

    assert ended.returncode == 1
    assert "wrong  launch      AMOPO_LAUNCH: nowhere.yaml is not here" in ended.stdout
    assert "wrong  parameters  " in ended.stdout
    assert "ok     ranks       two ranks on the CPU (gloo): 2 started" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
