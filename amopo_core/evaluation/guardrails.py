"""What a better candidate may not pay with: how far it moved, and what became of the user's own prompts.

The numbers are flat in report.json (`kl/base`, `regression/correctness/difference`), so that `dvc metrics diff` shows
them; what could not be measured is not there, and `unmeasured` says why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amopo_core.errors import UserError
from amopo_core.evaluation.bootstrap import Interval
from amopo_core.evaluation.regression import Regression

BASE, CHAMPION = "base", "champion"
_PARTS = ("mean", "low", "high")


@dataclass(frozen=True)
class Guardrails:
    """What the stage `guardrails` measured."""

    incumbent: str
    """Whom the candidate was held against on the regression set: `base` or `champion`."""
    kl: Mapping[str, float]
    """Mean KL divergence of the candidate from each at a token of its own answers [nats per token]."""
    unmeasured: Mapping[str, str]
    """Why a divergence is not there, by whose it would be."""
    regression: Regression | None
    """None where the regression set is empty."""


def guardrail_numbers(found: Guardrails) -> dict[str, Any]:
    """The report in JSON's types."""
    numbers: dict[str, Any] = {f"kl/{name}": round(nats, 6) for name, nats in found.kl.items()}
    if found.regression:
        numbers |= {"regression/prompts": found.regression.prompts, "regression/unit": found.regression.unit}
        for name, interval in found.regression.differences.items():
            numbers |= {f"regression/{name}/{part}": round(getattr(interval, part), 6) for part in _PARTS}
    return {"incumbent": found.incumbent, **numbers, "unmeasured": dict(found.unmeasured)}


def read_guardrails(path: Path) -> Guardrails:
    """The report that `guardrail_numbers` made.

    Raises:
        UserError: the file is missing or is no such report.
    """
    try:
        numbers: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Guardrails(
            incumbent=str(numbers["incumbent"]),
            kl={name: float(numbers[f"kl/{name}"]) for name in (BASE, CHAMPION) if f"kl/{name}" in numbers},
            unmeasured={str(name): str(why) for name, why in numbers["unmeasured"].items()},
            regression=_regression(numbers),
        )
    except FileNotFoundError:
        raise UserError(f"{path} is not here; its stage makes it: run `dvc repro`") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is no report of the guardrails; remove it and run `dvc repro`") from None


def _regression(numbers: Mapping[str, Any]) -> Regression | None:
    if "regression/prompts" not in numbers:
        return None
    names = [key.split("/")[1] for key in numbers if key.startswith("regression/") and key.endswith("/mean")]
    differences = {name: Interval(*(float(numbers[f"regression/{name}/{part}"]) for part in _PARTS)) for name in names}
    return Regression(int(numbers["regression/prompts"]), str(numbers["regression/unit"]), differences)
