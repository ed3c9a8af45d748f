"""Parameters that no tuning moves, and measurements written by hand."""

from pathlib import Path

import pytest

from amopo_core.config import Params
from amopo_core.params_file import read_params

TESTS = Path(__file__).parents[2]


@pytest.fixture
def params() -> Params:
    """A project's parameters with everything that these tests rely on set here: two dimensions, few draws."""
    document = read_params(TESTS / "params.yaml").model_dump(mode="json")
    document["dimensions"] = {
        "helpfulness": {"description": "helps", "weight": 1.0},
        "correctness": {"description": "is right", "weight": 1.0},
    }
    document["sources"] = {"mine": {"rows": "responses", "scores": {"helpfulness": {"field": "h", "scale": [1, 5]}}}}
    document["runtime"] |= {"seed": 0, "threads": 1}
    document["promotion"] |= {"weights": {}, "tolerance": {}, "min_test_prompts": 2}
    document["objective"] |= {"weighting": "gaussian", "fixed_weights": {}}
    document["evaluation"] |= {
        "prompt_view": "plain",
        "max_new_tokens": 8,
        "temperature": 1.0,
        "max_prompts": 5,
        "batch_size": 4,
        "bootstrap_draws": 400,
        "confidence": 0.95,
    }
    return Params.model_validate(document)
