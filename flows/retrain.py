"""The retraining flow: from new feedback to a registered policy and, where it is better, a new champion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from amopo_core.params_file import read_params
from amopo_core.promotion import Verdict
from amopo_core.training.launch import launch_file
from tasks import git, registry, tracking
from tasks.champion import bring_champion
from tasks.dvc import StageRun, record, run_stage
from tasks.dvc_command import CHAMPION, FEEDBACK, add, is_clean
from tasks.errors import OutsideError
from tasks.fetch import fetch_sources
from tasks.identity import data_digests, version_tags
from tasks.inbox import take_inbox
from tasks.last_retraining import noted
from tasks.lock import CANDIDATE, read_lock
from tasks.notification import notify, tell_failure
from tasks.registry import Version
from tasks.verdict import Measured, compare_candidate, decide_promotion

REPORT = Path("reports/evaluate/report.md")
FEEDBACK_REPORT = tracking.QUALITY / "report.html"


@dataclass(frozen=True)
class Outcome:
    """What a run of the flow came to."""

    version: Version
    executed: tuple[str, ...] = ()
    """The stages that were not up to date."""
    measured: Measured | None = None
    """None where the version was settled earlier."""
    verdict: Verdict | None = None
    """None where the version was settled earlier."""


@flow(name="retrain", on_failure=[tell_failure])
@noted()
def retrain() -> Outcome:
    """Ingest; where anything is due, bring the stages up to date, record, register, decide and promote.

    What a crash left done is found done: stages by DVC, the version by the digest of what made it, the decision on the
    version. A version that is settled is never decided again.
    """
    git.require_workspace()
    params = read_params()
    git.require_known_sources(params.evaluation.judge, params.ingestion.redactor)
    fetch_sources()
    take_inbox()
    add(FEEDBACK)
    runs = [run_stage("normalize"), run_stage("pairs"), run_stage("quality")]
    found = registry.by_lock(read_lock().digest)
    if found and found.settled and is_clean(*CANDIDATE):
        get_run_logger().info("nothing new and nothing changed: version %s is up to date", found.number)
        return Outcome(found, executed(runs))

    runs.append(run_stage("base"))
    with tracking.tracked_run() as run_id:
        tracking.clear_training_logs()
        with tracking.follow_history(run_id) as history, tracking.follow_speed(run_id) as speed:
            runs.append(run_stage("train"))
        runs.append(run_stage("evaluate"))
        found = registry.by_lock(read_lock().digest)
        rival = registry.rival_of(found)
        bring_champion(rival)
        add(CHAMPION)
        runs.append(run_stage("evaluate-champion"))
        if not is_clean():
            raise OutsideError("files changed while the stages ran (see `dvc status`); run the same command again")
        if found and found.settled:
            get_run_logger().info("this very state is version %s, settled earlier", found.number)
            tracking.name_version(run_id, found.number)
            return Outcome(found, executed(runs))

        lock = read_lock()
        commit = record(f"retrain-{lock.digest[:12]}", run_id)
        tracking.log_history(run_id, history.sent)
        tracking.log_times(run_id, speed.sent)
        tracking.log_results(run_id, params, data_digests(lock))
        measured = compare_candidate(has_champion=rival is not None)
        tags = version_tags(lock, params, run_id=run_id, commit=commit, launch=launch_file())
        version = found or registry.register(run_id, params, measured.against_base, tags)
        registry.challenge(version, commit)
        tracking.name_version(run_id, version.number, commit)
        verdict = registry.decision_on(version, rival) or decide_promotion(measured)
        create_markdown_artifact(REPORT.read_text(encoding="utf-8"), key="retrain-report")
        create_markdown_artifact(quality_verdict(), key="feedback-quality")
        registry.settle(version, verdict, rival)
    became = "is champion now" if verdict.promote else "was not promoted"
    notify("promotion" if verdict.promote else "verdict", f"{version.uri} {became}", "\n".join(verdict.reasons))
    return Outcome(version, executed(runs), measured, verdict)


def quality_verdict() -> str:
    """The top of the quality report, with where the whole of it is: its pictures do not reach Prefect's pages."""
    text = (tracking.QUALITY / "report.md").read_text(encoding="utf-8")
    return f"{text.partition('## Rows')[0]}\nThe whole report: `{FEEDBACK_REPORT}`, also in MLflow.\n"


def executed(runs: Sequence[StageRun]) -> tuple[str, ...]:
    """The stages that were not up to date."""
    return tuple(run.stage for run in runs if run.executed)
