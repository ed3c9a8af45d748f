"""What registered versions do on the current test set: measured once, kept by the digest of all that decides it."""

from __future__ import annotations

import json
from hashlib import file_digest, sha256
from importlib.metadata import version as installed
from pathlib import Path

import amopo_core
from amopo_core.config import Params
from amopo_core.data.tables import read_pairs
from amopo_core.errors import UserError
from amopo_core.evaluation.measurement import Measurement, read_measurement, write_measurement
from tasks.checkpoint import brought
from tasks.registry import POLICY_TAG, Version

TEST = Path("data/pairs/test.parquet")
KEPT = Path(".amopo/measurements")
_SECTIONS = {"dimensions", "evaluation", "playground", "runtime", "views"}
"""Of params.yaml, what decides a measurement."""


def is_kept(version: Version, params: Params) -> bool:
    """Whether the version was measured before under all the same circumstances."""
    return _file(version, params).exists()


def measure_version(version: Version, params: Params) -> Measurement:
    """What the version does with the test pairs and the held-out prompts of this workspace.

    Raises:
        UserError: there is no test set or no judge here.
    """
    file = _file(version, params)
    if not file.exists():
        from amopo_core.evaluation.judge import load_judge
        from amopo_core.evaluation.measuring import measure_folder

        judge, pairs = load_judge(Path(params.evaluation.judge)), read_pairs(TEST)
        with brought(version) as folder:
            write_measurement(file, measure_folder(folder, pairs, judge, params))
    return read_measurement(file)


def _file(version: Version, params: Params) -> Path:
    if not TEST.exists():
        raise UserError(f"{TEST} is not here; `dvc checkout data/pairs` brings it, `amopo retrain` makes it")
    judge = Path(params.evaluation.judge)
    if not judge.is_file():
        raise UserError(
            f"evaluation.judge: {judge} is not here; bring it back, or name another judge in params.yaml, such as"
            " amopo_core/judges/none.py for ranking only"
        )
    circumstances = {
        "policy": version.tags.get(POLICY_TAG) or f"{version.uri} of run {version.run_id}",
        "test": _digest(TEST),
        "judge": _digest(judge),
        "params": params.model_dump(mode="json", include=_SECTIONS),
        "code": {path.as_posix(): _digest(path) for path in sorted(Path(amopo_core.__path__[0]).rglob("*.py"))},
        "packages": {name: installed(name) for name in ("torch", "transformers")},
    }
    return KEPT / f"{sha256(json.dumps(circumstances, sort_keys=True).encode()).hexdigest()}.jsonl"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
