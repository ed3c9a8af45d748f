"""The retraining flow: from new feedback to a registered policy and, where it is better, a new champion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import flow, get_run_logger

from amopo_core.params_file import read_params
from amopo_core.promotion import Verdict
from amopo_core.training.launch import launch_file
from flows.approval import wait_for_approval
from tasks import git, registry, settlement, tracking
from tasks.cancellation import ends_when_cancelled
from tasks.champion import bring_champion
from tasks.dvc import StageRun, record, run_stage
from tasks.dvc_command import CHAMPION, FEEDBACK, add, is_clean
from tasks.errors import OutsideError
from tasks.fetch import fetch_sources
from tasks.identity import data_digests, promotion_digest, record_name, version_tags
from tasks.inbox import take_inbox
from tasks.killed_runs import close_killed_runs
from tasks.last_retraining import note_end, noted
from tasks.leftovers import clear_leftovers
from tasks.lock import CANDIDATE, read_lock
from tasks.notification import tell_failure
from tasks.pages import keep_page
from tasks.registry import Version
from tasks.report_page import report_page
from tasks.standing import AWAITING
from tasks.telling import tell_verdict
from tasks.verdict import DECISION, Measured, compare_candidate, decide_promotion
from tasks.waiting import wait_for_mlflow

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
    standing: str | None = None
    """The verdict as it is written on the version, a person's answer included; None where it was settled earlier."""


@flow(name="retrain", on_failure=[tell_failure])
@ends_when_cancelled
@noted()
def retrain() -> Outcome:
    """Ingest; where anything is due, bring the stages up to date, record, register, decide and promote.

    What a crash left done is found done: stages by DVC, the version by the digest of what made it, the decision on the
    version. A version that is settled is never decided again.
    """
    git.require_workspace()
    for line in [*clear_leftovers(), *close_killed_runs()]:
        get_run_logger().warning(line)
    params = read_params()
    git.require_known_sources(params.evaluation.judge, params.ingestion.redactor, params.promotion.regression)
    fetch_sources()
    take_inbox()
    add(FEEDBACK)
    settlement.check_champion()
    runs = [run_stage("normalize"), run_stage("pairs"), run_stage("quality")]
    decided_by = promotion_digest(params)
    found = registry.by_lock(read_lock().digest, decided_by)
    if found and found.settled and is_clean(*CANDIDATE):
        get_run_logger().info("nothing new and nothing changed: version %s is up to date", found.number)
        tell_verdict(found)
        return Outcome(found, executed(runs))

    imports = registry.import_ahead()
    runs.append(run_stage("base"))
    imports.join()
    with tracking.tracked_run() as run_id:
        tracking.clear_training_logs()
        with tracking.follow_history(run_id) as history, tracking.follow_speed(run_id) as speed:
            runs.append(run_stage("train"))
        runs.append(run_stage("evaluate"))
        wait_for_mlflow(get_run_logger())
        found = registry.by_lock(read_lock().digest, decided_by)
        rival = settlement.rival_of(found)
        bring_champion(rival)
        add(CHAMPION)
        runs += [run_stage("evaluate-champion"), run_stage("guardrails")]
        if not is_clean():
            raise OutsideError("files changed while the stages ran (see `dvc status`); run the same command again")
        if found and found.settled:
            get_run_logger().info("this very state is version %s, settled earlier", found.number)
            tracking.name_version(run_id, found.number)
            tell_verdict(found)
            return Outcome(found, executed(runs))

        wait_for_mlflow(get_run_logger())
        lock = read_lock()
        commit = record(record_name(lock, params), run_id)
        tracking.log_history(run_id, history.sent)
        tracking.log_times(run_id, speed.sent)
        tracking.log_results(run_id, params, data_digests(lock))
        measured = compare_candidate(has_champion=rival is not None)
        tags = version_tags(lock, params, run_id=run_id, commit=commit, launch=launch_file())
        tracking.tag_run(run_id, tags)
        version = found or registry.register(run_id, params, measured.against_base, tags)
        registry.challenge(version, commit)
        tracking.name_version(run_id, version.number, commit)
        verdict = settlement.decision_on(version, rival)
        if verdict is None:
            verdict = decide_promotion(measured, version.number, rival.number if rival else None)
            tracking.log_decision(run_id, DECISION)
        keep_page("retrain-report", report_page(REPORT, version, verdict))
        keep_page("feedback-quality", quality_verdict())
        needs_approval = params.promotion.approval == "human"
        standing = settlement.settle(version, verdict, rival, needs_approval=needs_approval)
    tell_verdict(version)
    if standing == AWAITING:
        note_end()
        standing = wait_for_approval(version, verdict)
    return Outcome(version, executed(runs), measured, verdict, standing)


def quality_verdict() -> str:
    """The top of the quality report, with where the whole of it is: its pictures do not reach Prefect's pages."""
    text = (tracking.QUALITY / "report.md").read_text(encoding="utf-8")
    return f"{text.partition('## Rows')[0]}\nThe whole report: `{FEEDBACK_REPORT}`, also in MLflow.\n"


def executed(runs: Sequence[StageRun]) -> tuple[str, ...]:
    """The stages that were not up to date."""
    return tuple(run.stage for run in runs if run.executed)
