"""What names a version: the run, the commit, and the digests of everything that made it."""

from __future__ import annotations

from pathlib import Path

from amopo_core.config import Params
from tasks.environment import environment_tags
from tasks.lock import Lock
from tasks.registry import LOCK_TAG, POLICY_TAG
from tasks.tracking import COMMIT_TAG


def version_tags(lock: Lock, params: Params, *, run_id: str, commit: str, launch: Path) -> dict[str, str]:
    """The tags of a version, from which its run can be found and made again."""
    return (
        environment_tags(params.runtime.seed, launch)
        | {
            LOCK_TAG: lock.digest,
            POLICY_TAG: lock.output("train", "models/policy"),
            "run": run_id,
            COMMIT_TAG: commit,
            "base": lock.output("base", "models/base"),
            "dimensions": ",".join(params.dimensions),
            "sources": ",".join(params.sources),
        }
        | data_digests(lock)
    )


def data_digests(lock: Lock) -> dict[str, str]:
    """DVC's digest of the feedback and of the pairs, by folder."""
    return {
        "data/feedback": lock.dependency("normalize", "data/feedback"),
        "data/pairs": lock.output("pairs", "data/pairs"),
    }
