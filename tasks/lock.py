"""dvc.lock, read: the digests that name a run and its data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

LOCK_FILE = Path("dvc.lock")
CANDIDATE = ("pairs", "base", "train", "evaluate")
"""The stages that make and measure a policy. Feedback that is not trained on changes `normalize` alone, and a promotion
makes `evaluate-champion` and `guardrails` alone stale: neither makes another policy."""


@dataclass(frozen=True)
class Lock:
    """The stages of dvc.lock."""

    stages: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 over commands, inputs, parameters and outputs of the stages that make and measure a policy."""
        candidate = {name: stage for name, stage in self.stages.items() if name in CANDIDATE}
        return sha256(json.dumps(candidate, sort_keys=True).encode()).hexdigest()

    @property
    def outputs(self) -> dict[str, dict[str, str]]:
        """DVC's digest of each output, by stage and path."""
        return {
            name: {out["path"]: str(out["md5"]) for out in stage.get("outs", ())} for name, stage in self.stages.items()
        }

    def output(self, stage: str, path: str) -> str:
        """DVC's digest of what a stage wrote at `path`."""
        return str(next(out["md5"] for out in self.stages[stage]["outs"] if out["path"] == path))

    def dependency(self, stage: str, path: str) -> str:
        """DVC's digest of what a stage read at `path`."""
        return str(next(dep["md5"] for dep in self.stages[stage]["deps"] if dep["path"] == path))


def read_lock(path: Path = LOCK_FILE) -> Lock:
    """The lock file; one without stages where there is none yet."""
    return parse_lock(path.read_text(encoding="utf-8")) if path.exists() else Lock({})


def parse_lock(text: str) -> Lock:
    """The lock file of that text."""
    return Lock(YAML(typ="safe").load(text)["stages"])
