"""The retraining flow: from new feedback to a registered policy and, where it is better, a new champion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from amopo_core.params_file import read_params
from amopo_core.promotion import Verdict
from tasks import git, registry, tracking
from tasks.champion import bring_champion
from tasks.dvc import record, run_stage
from tasks.dvc_command import CHAMPION, FEEDBACK, add, is_clean
from tasks.errors import OutsideError
from tasks.identity import data_digests, version_tags
from tasks.inbox import take_inbox
from tasks.lock import read_lock
from tasks.registry import Version
from tasks.verdict import Measured, compare_candidate, decide_promotion

BEFORE_TRAINING = ("normalize", "pairs", "base")
AFTER_TRAINING = ("evaluate", "evaluate-champion")
CANDIDATE = (*BEFORE_TRAINING, "train", "evaluate")
"""The stages that decide whether a run is due; `evaluate-champion` would make one due after every promotion."""
REPORT = Path("reports/evaluate/report.md")


@dataclass(frozen=True)
class Outcome:
    """What a run of the flow came to."""

    version: Version
    executed: tuple[str, ...] = ()
    """The stages that were not up to date."""
    measured: Measured | None = None
    """None where nothing was due."""
    verdict: Verdict | None = None
    """None where nothing was due."""


@flow(name="retrain")
def retrain() -> Outcome:
    """Ingest; where anything is due, bring the stages up to date, record, register, decide and promote.

    What a crash left done is found done: stages by DVC, the version by the lock file's digest.
    """
    git.require_workspace()
    take_inbox()
    version = registry.by_lock(read_lock().digest)
    if version and version.settled and is_clean("data/feedback.dvc", *CANDIDATE):
        get_run_logger().info("nothing new and nothing changed: version %s is up to date", version.number)
        return Outcome(version)

    champion = registry.by_alias(registry.CHAMPION)
    bring_champion(champion)
    add(FEEDBACK, CHAMPION)
    runs = [run_stage(stage) for stage in BEFORE_TRAINING]
    with tracking.tracked_run() as run_id:
        with tracking.follow_history(run_id) as history:
            runs.append(run_stage("train"))
        runs += [run_stage(stage) for stage in AFTER_TRAINING]
        if not is_clean():
            raise OutsideError("files changed while the stages ran (see `dvc status`); run the same command again")
        lock, params = read_lock(), read_params()
        commit = record(f"retrain-{lock.digest[:12]}")
        tracking.log_history(run_id, history.sent)
        tracking.log_results(run_id, params, data_digests(lock))
        found = registry.by_lock(lock.digest)
        rival = None if champion == found else champion  # equal: a crash came between its promotion and its verdict
        measured = compare_candidate(has_champion=rival is not None)
        tags = version_tags(lock, params, run_id=run_id, commit=commit)
        version = found or registry.register(run_id, params, measured.against_base, tags)
        verdict = decide_promotion(measured)
        if verdict.promote:
            registry.promote(version, rival)
        registry.settle(version, verdict)
    create_markdown_artifact(REPORT.read_text(encoding="utf-8"), key="retrain-report")
    return Outcome(version, tuple(run.stage for run in runs if run.executed), measured, verdict)
