"""Ctrl-C while a stage still imports what it needs, which can take seconds."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
AT_IMPORT = """
import os, signal, sys

class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["CTRL_C_AT"]:
            exec("os.kill(os.getpid(), signal.SIGINT)")

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, CtrlC())
"""
"""Python runs a sitecustomize.py at its start: this one gives the process a real SIGINT as it comes to an import.

It does so within `exec`, like the modules that make classes from text: Python then ends a process by the signal itself,
also where the KeyboardInterrupt is caught.
"""
PATHS = {
    "normalize": ("feedback", "normalized", "quarantine", "report"),
    "pairs": ("normalized", "pairs", "report"),
    "base": ("base", "report"),
    "evaluate": ("pairs", "base", "policy", "report"),
    "evaluate_champion": ("pairs", "champion", "report"),
    "guardrails": ("answers", "base", "policy", "champion", "report"),
}


@pytest.mark.parametrize(
    ("stage", "module"),
    [
        *((stage, "pydantic") for stage in PATHS),
        *((stage, "pyarrow") for stage in PATHS if stage != "base"),
        ("base", "torch"),
        ("evaluate", "torch"),
    ],
)
def test_ctrl_c_during_an_import_exits_130(tmp_path, stage, module):
    shutil.copy(TESTS / "params.yaml", tmp_path)
    (tmp_path / "sitecustomize.py").write_text(AT_IMPORT)
    options = [f"--{name}=made/{name}" for name in PATHS[stage]]

    ended = subprocess.run(
        [sys.executable, "-m", f"amopo_core.stages.{stage}", *options],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "CTRL_C_AT": module},
        capture_output=True,
        text=True,
    )

    assert (ended.returncode, ended.stderr) == (128 + signal.SIGINT, "error: interrupted\n")
    assert not (tmp_path / "made").exists()
