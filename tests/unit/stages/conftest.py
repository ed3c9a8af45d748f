"""A folder with feedback and parameters, the data stages as real processes in it, and trainings that are done."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from amopo_core.data.batches import append_batch
from amopo_core.data.reading import Row
from tests.unit.stages import training

TESTS = Path(__file__).parents[2]

PATHS = {
    "normalize": {
        "feedback": "data/feedback",
        "decisions": "data/decisions.jsonl",
        "normalized": "data/normalized",
        "quarantine": "data/quarantine",
        "report": "reports/normalize.json",
    },
    "pairs": {"normalized": "data/normalized", "pairs": "data/pairs", "report": "reports/pairs.json"},
}

DATA_SECTIONS: dict[str, Any] = {
    "dimensions": {
        "help": {"description": "helps", "weight": 1.0},
        "true": {"description": "is true", "weight": 1.0},
    },
    "sources": {
        "web": {
            "rows": "responses",
            "scores": {"help": {"field": "help", "scale": [1, 5]}, "true": {"field": "true", "scale": [0, 10]}},
        }
    },
    "pairs": {
        "order_by": "dimensions",
        "selection": "all",
        "incomparable": "keep",
        "max_per_prompt": 6,
        "validation_share": 0.1,
        "test_share": 0.2,
    },
}


@dataclass
class DataWorkspace:
    """A folder with params.yaml in which the data stages are run."""

    folder: Path

    def write_params(self, **changes: Any) -> None:
        """The tests' parameters with the data sections of these tests and `section={key: value}` changes."""
        params = YAML(typ="safe").load(TESTS / "params.yaml") | deepcopy(DATA_SECTIONS)
        params["promotion"].update(weights={}, tolerance={})
        params["objective"].update(weighting="uniform", fixed_weights={})
        params["evaluation"].update(prompt_view="plain")
        for section, values in changes.items():
            params[section].update(values)
        YAML(typ="safe").dump(params, self.folder / "params.yaml")

    def ingest(self, rows: Sequence[dict[str, Any]], source: str = "web") -> None:
        append_batch(self.folder / "data/feedback", source, [Row(line, row) for line, row in enumerate(rows, start=1)])

    def command(self, stage: str, **paths: str) -> list[str]:
        options = [f"--{name}={path}" for name, path in (PATHS[stage] | paths).items()]
        return [sys.executable, "-m", f"amopo_core.stages.{stage}", *options]

    def run(self, stage: str, **paths: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(stage, **paths), cwd=self.folder, capture_output=True, text=True, check=False
        )

    def files(self) -> dict[str, bytes]:
        """Everything in the folder by its path, but for what is kept of batches that were taken apart."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file() and ".amopo" not in path.parts)
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}


@pytest.fixture
def workspace(tmp_path: Path) -> DataWorkspace:
    made = DataWorkspace(tmp_path)
    made.write_params()
    return made


@pytest.fixture
def feedback() -> list[dict[str, Any]]:
    """Three responses to each of 40 prompts; the two dimensions prefer opposite ends."""
    return [
        {"prompt": f"prompt {prompt}", "response": f"response {better}", "help": 2 + better, "true": 3 - better}
        for prompt in range(40)
        for better in range(3)
    ]


@pytest.fixture(scope="session")
def training_runs(tiny_policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run of one rank and one of two ranks on the same inputs, made side by side.

    Read-only by agreement: a test copies a folder, or what was put into it.
    """
    one, two = (tmp_path_factory.mktemp(name) for name in ("one-rank", "two-ranks"))
    for folder in (one, two):
        training.make_inputs(folder, tiny_policy_folder)
    children = [training.start(one), training.start(two, "cpu-two-ranks.yaml")]
    for child in children:
        training.finished(child)
    return one, two


@pytest.fixture(scope="session")
def trained(training_runs: tuple[Path, Path]) -> Path:
    """The finished run of one rank: 24 steps."""
    return training_runs[0]


@pytest.fixture(scope="session")
def trained_by_two(training_runs: tuple[Path, Path]) -> Path:
    """The same with two ranks."""
    return training_runs[1]
