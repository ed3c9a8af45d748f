"""What names a version: the run, the commit, and the digests of everything that made it."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from amopo_core.config import Params
from tasks.environment import environment_tags
from tasks.lock import Lock
from tasks.registry import LOCK_TAG, POLICY_TAG, PROMOTION_TAG
from tasks.tracking import COMMIT_TAG


def version_tags(lock: Lock, params: Params, *, run_id: str, commit: str, launch: Path) -> dict[str, str]:
    """The tags of a version, from which its run can be found and made again."""
    return (
        environment_tags(params.runtime.seed, launch)
        | {
            LOCK_TAG: lock.digest,
            PROMOTION_TAG: promotion_digest(params),
            POLICY_TAG: lock.output("train", "models/policy"),
            "run": run_id,
            COMMIT_TAG: commit,
            "base": lock.output("base", "models/base"),
            "dimensions": ",".join(params.dimensions),
            "sources": ",".join(params.sources),
        }
        | data_digests(lock)
    )


def promotion_digest(params: Params) -> str:
    """SHA-256 of the section `promotion`: its limits change nothing that a stage makes, and maybe the verdict."""
    return sha256(json.dumps(params.promotion.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def record_name(lock: Lock, params: Params) -> str:
    """Name of the DVC experiment that records a run."""
    return f"retrain-{sha256((lock.digest + promotion_digest(params)).encode()).hexdigest()[:12]}"


def data_digests(lock: Lock) -> dict[str, str]:
    """DVC's digest of the feedback and of the pairs, by folder."""
    return {
        "data/feedback": lock.dependency("normalize", "data/feedback"),
        "data/pairs": lock.output("pairs", "data/pairs"),
    }
