"""The project's own parameters, which a user changes, hold together."""

from pathlib import Path

from amopo_core.params_file import read_params

ROOT = Path(__file__).parents[2]


def test_the_parameters_are_valid() -> None:
    read_params(ROOT / "params.yaml")
