"""DVC, the only cache: bring a stage up to date, record the workspace."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from amopo_core.errors import UserError
from amopo_core.stages.command import EXIT_INTERRUPTED, EXIT_USER_ERROR, MESSAGE
from amopo_core.training.run_folder import remove_published
from tasks import git
from tasks.dvc_command import DVC, has_remote, run_dvc
from tasks.errors import OutsideError
from tasks.process import run_live

_EXIT_STATUS = re.compile(r"^ERROR: .*exited with (-?\d+)")
_BUSY = re.compile(r"acquire lock|is busy, it is being blocked")
_CHATTER = re.compile(
    r"\s*$|> python|To track the changes|To enable auto|\tgit add|\tdvc config|Use `dvc push`"
    r"|(Generating|Updating) lock file|Data and pipelines are up|WARNING: .*( is empty| had been killed)"
)
"""What DVC says beside the stage's own lines."""
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

    Raises:
        UserError: the stage refused what the user gave; the message is the stage's own.
        OutsideError: the stage or DVC failed.
    """
    log = get_run_logger()

    def say(line: str) -> None:
        if not _CHATTER.match(line):
            log.info(line.removeprefix(f"{stage}: "))

    status, lines = run_live([*DVC, "--wait-for-lock", "repro", "--single-item", stage], say)
    if status:
        raise failure(stage, lines)
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
    included = [argument for path in git.untracked() for argument in ("--include-untracked", path)]
    message = f"Retraining {name}, MLflow run {run_id}"
    run_dvc(
        *("exp", "save", "--quiet", "--force", "--name", name, "--message", message, *included),
        extra=git.stand_in_author(),
    )
    commit = git.experiment_commit(name)
    if has_remote():
        send(name)
    remove_published()  # DVC has the policy now: the last checkpoint has served
    log.info("experiment %s, commit %s", name, commit[:12])
    return commit


def send(name: str) -> None:
    """Send the data to the DVC remote, then the record to git's; the record never arrives before what it points to."""
    log = get_run_logger()
    log.info("sending the data to the DVC remote")
    run_dvc("push", "--quiet")
    if (remote := git.default_remote()) is None:
        log.warning("git has no remote `origin`: the data are sent, the record stays in this repository alone")
        return
    log.info("sending the record to git's remote %s", remote)
    run_dvc("exp", "push", "--quiet", "--no-cache", remote, name)


def failure(stage: str, lines: Sequence[str]) -> Exception:
    """The exception that says best why `dvc repro` of a stage failed, by the lines it left."""
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
        return OutsideError(f"stage {stage} was interrupted from outside; run the same command again to go on")
    return OutsideError(f"stage {stage} failed with exit status {status}: {message}")
