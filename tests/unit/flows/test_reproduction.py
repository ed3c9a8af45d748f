"""What `amopo reproduce` shows."""

from io import StringIO
from pathlib import Path

import yaml
from rich.console import Console

from flows.reproduction import outputs_table
from tasks.reproduction import Compared

ROOT = Path(__file__).parents[3]
DIGEST, OTHER = "0123456789abcdef" * 2, "fedcba9876543210" * 2


def paths(stage):
    named = [output for kind in ("outs", "metrics", "plots") for output in stage.get(kind, [])]
    return [output if isinstance(output, str) else next(iter(output)) for output in named]


def test_eighty_columns_hold_every_path_whole_and_say_which_differ():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    outputs = [
        Compared(stage, path, DIGEST, {"models/policy": OTHER, "models/base": None}.get(path, DIGEST))
        for stage, parts in stages.items()
        for path in paths(parts)
    ]
    Console(width=80, file=(said := StringIO())).print(outputs_table("retrain-0123456789ab", outputs))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.getvalue().splitlines()]

    shown = {cells[0]: cells[1:] for cells in rows if cells}
    assert shown == {stage: ["", "", ""] for stage in stages} | {
        output.path: [DIGEST[:8], (output.now or "none")[:8], "same" if output.same else "DIFFERS"]
        for output in outputs
    }
    assert [path for path, cells in shown.items() if cells[-1] == "DIFFERS"] == ["models/base", "models/policy"]
