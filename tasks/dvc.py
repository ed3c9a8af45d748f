"""DVC, the only cache: bring a stage up to date, record the workspace."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from amopo_core.errors import UserError
from amopo_core.stages.command import EXIT_INTERRUPTED, EXIT_USER_ERROR, MESSAGE
from amopo_core.training.run_folder import remove_published
from tasks import git, snapshot
from tasks.dvc_command import DVC, has_remote, remove_outputs, run_dvc
from tasks.errors import OutsideError
from tasks.lock import read_lock
from tasks.process import run_live
from tasks.verified import drop_damaged, names_in

_EXIT_STATUS = re.compile(r"^ERROR: .*exited with (-?\d+)")
_BUSY = re.compile(r"acquire lock|is busy, it is being blocked")
_CHATTER = re.compile(
    r"\s*$|> exec python|To track the changes|To enable auto|\tgit add|\tdvc config|Use `dvc push`"
    r"|(Generating|Updating) lock file|Data and pipelines are up|WARNING: .*( is empty| had been killed)"
)
"""What DVC says beside the stage's own lines."""
_FROM_CACHE = "is cached - skipping run, checking out outputs"
_GO_ON = "run the same command again to go on"
_TAIL = 20
"""Lines of a failed command that an error shows."""


class RepositoryBusy(OutsideError):
    """Another DVC command holds the repository or one of its paths; trying again may do."""


@dataclass(frozen=True)
class StageRun:
    """What bringing one stage up to date took."""

    stage: str
    executed: bool
    """False where DVC had its outputs already."""


def _was_busy(_task: Task[..., object], _run: TaskRun, state: State[object]) -> bool:
    return isinstance(state.result(raise_on_failure=False), RepositoryBusy)


@task(task_run_name="{stage}", cache_policy=NO_CACHE, retries=3, retry_delay_seconds=20, retry_condition_fn=_was_busy)
def run_stage(stage: str) -> StageRun:
    """Bring one stage up to date; only a busy repository is tried again, never a stage that failed.

    Outputs that came out of the cache are hashed; where the cache was damaged the stage runs.

    Raises:
        UserError: the stage refused what the user gave; the message is the stage's own.
        OutsideError: the stage or DVC failed.
    """
    log = get_run_logger()

    def say(line: str) -> None:
        if not _CHATTER.match(line):
            log.info(line.removeprefix(f"{stage}: "))

    command = [*DVC, "--wait-for-lock", "repro", "--single-item", stage]
    status, lines = run_live(command, say)
    if not status and any(_FROM_CACHE in line for line in lines):
        outputs = read_lock().outputs[stage]
        if damaged := drop_damaged(outputs.values()):
            log.warning("%d files of DVC's cache were damaged: making them anew", len(damaged))
            remove_outputs(outputs)
            status, lines = run_live(command, say)
    if status:
        raise failure(stage, lines, status)
    return StageRun(stage, executed=f"Running stage '{stage}':" in lines)


@task(task_run_name="record", cache_policy=NO_CACHE)
def record(name: str, run_id: str) -> str:
    """The commit that now holds the workspace: code, params, lock file, pointers and metrics. No branch moves.

    Where there is a remote, the data go there, and the commit to git's remote: whoever has both can make the run again.

    Args:
        name: of DVC's experiment.
        run_id: the MLflow run, which the commit names.
    """
    log = get_run_logger()
    log.info("recording this state in a commit")
    _store_anew_what_is_damaged()
    commit = snapshot.save(name, f"Retraining {name}, MLflow run {run_id}")
    if has_remote():
        send(name)
    remove_published()  # DVC has the policy now: the last checkpoint has served
    log.info("experiment %s, commit %s", name, commit[:12])
    return commit


def send(name: str) -> None:
    """Send the data to the DVC remote, then the record to git's; the record never arrives before what it points to."""
    log = get_run_logger()
    log.info("sending the data to the DVC remote")
    try:
        run_dvc("push", "--quiet")
    except OutsideError as error:
        raise OutsideError(
            "not all data could be sent to the DVC remote, so nothing is registered; mend the remote and run the same"
            f" command again: what arrived stays there, what is trained is kept\n{error}"
        ) from None
    if (remote := git.default_remote()) is None:
        log.warning("git has no remote `origin`: the data are sent, the record stays in this repository alone")
        return
    log.info("sending the record to git's remote %s", remote)
    # a run that failed behind its record makes another of the same name, which DVC would leave here, and exit with 0
    run_dvc("exp", "push", "--quiet", "--no-cache", "--force", remote, name)


def _store_anew_what_is_damaged() -> None:
    """Hash what the record will point to; what the cache holds wrongly comes out of this folder, which is clean."""
    if not (damaged := drop_damaged(names_in(Path()))):
        return
    get_run_logger().warning("%d files of DVC's cache were damaged: storing them anew", len(damaged))
    run_dvc("--wait-for-lock", "commit", "--quiet")
    if left := drop_damaged(names_in(Path())):
        raise OutsideError(
            f"{len(left)} files are damaged in DVC's cache and in this folder, to which it is linked; remove data/pairs"
            " and models, and run the same command again: the stages make them anew"
        )


def failure(stage: str, lines: Sequence[str], status: int = 1) -> Exception:
    """The exception that says best why `dvc repro` of a stage failed, by the lines it left and its exit status."""
    if status < 0:
        return OutsideError(f"stage {stage}: DVC was ended from outside (signal {-status}); {_GO_ON}")
    exits = [int(found[1]) for line in lines if (found := _EXIT_STATUS.search(line))]
    if exits:
        return _stage_failure(stage, exits[-1], [line for line in lines if not line.startswith("ERROR: ")])
    tail = "\n".join(lines[-_TAIL:])
    if _BUSY.search(tail):
        return RepositoryBusy(f"stage {stage}: another DVC command is at work here; wait until it ends\n{tail}")
    return OutsideError(f"stage {stage}: DVC could not run it\n{tail}")


def _stage_failure(stage: str, status: int, lines: Sequence[str]) -> Exception:
    starts = [place for place, line in enumerate(lines) if line.startswith(MESSAGE)]
    message = "\n".join(lines[starts[-1] :] if starts else lines[-_TAIL:]).removeprefix(MESSAGE)
    if status == EXIT_USER_ERROR:
        return UserError(f"stage {stage}: {message}")
    if status == EXIT_INTERRUPTED:
        return OutsideError(f"stage {stage} was interrupted from outside; {_GO_ON}")
    if status in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return OutsideError(f"stage {stage} was killed from outside, or for want of memory; {_GO_ON}")
    return OutsideError(f"stage {stage} failed with exit status {status}: {message}")
