"""A recorded run made again in a worktree of its commit, with nothing from the cache but what it was given."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks import environment, git
from tasks.dvc_command import DVC, has_remote, run_dvc
from tasks.errors import OutsideError
from tasks.identity import data_digests
from tasks.lock import LOCK_FILE, Lock, read_lock
from tasks.process import run_live
from tasks.recorded import Recorded
from tasks.registry import LOCK_TAG, POLICY_TAG
from tasks.verified import drop_damaged, names_in

FOLDER = Path(".amopo/reproduce")
METRICS = Path("reports/evaluate/report.json")
_LOCAL_CONFIG = Path(".dvc/config.local")


@dataclass(frozen=True)
class Compared:
    """One output of a stage: as it was recorded, and as it is now."""

    stage: str
    path: str
    recorded: str
    """DVC's digest."""
    now: str | None
    """None: the stage did not make it."""

    @property
    def same(self) -> bool:
        """Whether every byte is."""
        return self.recorded == self.now


@dataclass(frozen=True)
class Reproduction:
    """What came of making a run again."""

    outputs: tuple[Compared, ...]
    metrics: Mapping[str, tuple[float, float | None]]
    """By name, as recorded and now: those of a GPU run, which is held to its metrics; else none."""
    tolerance: float | None
    """How far a metric of a GPU run may be off, absolute; None: the bytes must be the same."""
    folder: Path
    """Where it was made; kept only where anything differs."""

    @property
    def same(self) -> bool:
        """Whether all bytes are the same; of a GPU run, whether all metrics are within the tolerance."""
        if self.tolerance is not None:
            return bool(self.metrics) and not self.off
        return all(output.same for output in self.outputs)

    @property
    def off(self) -> list[str]:
        """The metrics of a GPU run that are further off than the tolerance."""
        return [name for name, (then, now) in self.metrics.items() if not self._within(then, now)]

    def _within(self, then: float, now: float | None) -> bool:
        return now is not None and (then == now or math.isclose(then, now, rel_tol=0, abs_tol=self.tolerance or 0))


@dataclass(frozen=True)
class Finding:
    """One thing that a record claims, and whether it holds."""

    holds: bool
    said: str


def reproduce(recorded: Recorded, say: Callable[[str], None]) -> Reproduction:
    """Make every stage of a run again, from its feedback on, and compare what comes out.

    The run's own code runs, in a clean worktree of its commit; the cache is shared, but no result is taken from it.

    Args:
        recorded: which run.
        say: takes the lines of the stages as they come.

    Raises:
        UserError: the commit is no recorded run.
        OutsideError: its data are neither in the cache nor in the remote, or a stage fails.
    """
    before, folder = recorded.lock, FOLDER / recorded.commit[:12]
    tolerance = environment.tolerance(recorded.tags)
    with git.worktree(recorded.commit, folder) as worktree:
        _configure(folder)
        pointers = [str(path.relative_to(folder)) for path in sorted(folder.glob("*/*.dvc"))]
        _bring(folder, pointers, f"the data of {recorded.name}")
        then = {} if tolerance is None else _numbers(folder)
        _run(folder, recorded, say)
        now = _numbers(folder)
        found = Reproduction(
            outputs=compared(before, read_lock(folder / LOCK_FILE)),
            metrics={name: (value, now.get(name)) for name, value in then.items()},
            tolerance=tolerance,
            folder=folder,
        )
        worktree.keep = not found.same
        return found


def check(recorded: Recorded) -> list[Finding]:
    """What can be verified of a record without training: its parts are there, and are what its tags say.

    Raises:
        UserError: the commit is no recorded run.
    """
    lock = recorded.lock
    found = [_tagged("the digest of dvc.lock", recorded.tags.get(LOCK_TAG), lock.digest)]
    found.append(_tagged("the policy", recorded.tags.get(POLICY_TAG), lock.output("train", "models/policy")))
    found += [_tagged(path, recorded.tags.get(path), digest) for path, digest in data_digests(lock).items()]
    constraints = environment.constraints_digest(git.file_at(recorded.commit, str(environment.CONSTRAINTS)))
    found.append(_tagged("constraints.txt", recorded.tags.get(environment.CONSTRAINTS_TAG), constraints))
    with git.worktree(recorded.commit, FOLDER / f"check-{recorded.commit[:12]}") as worktree:
        _configure(worktree.folder)
        found += _there(worktree.folder)
    return found


def compared(before: Lock, after: Lock) -> tuple[Compared, ...]:
    """Every output that was recorded, beside its digest now."""
    now = after.outputs
    return tuple(
        Compared(stage, path, digest, now.get(stage, {}).get(path))
        for stage, outputs in before.outputs.items()
        for path, digest in outputs.items()
    )


def _configure(folder: Path) -> None:
    """The same cache and the same remote as here."""
    if _LOCAL_CONFIG.exists():
        shutil.copyfile(_LOCAL_CONFIG, folder / _LOCAL_CONFIG)
    cache = run_dvc("cache", "dir").stdout.strip()
    run_dvc("--cd", str(folder), "cache", "dir", "--local", str(Path(cache).resolve()))


def _bring(folder: Path, targets: list[str], what: str) -> None:
    """Check the targets out of the cache, what it lacks from the remote; what is damaged in the cache is lacking."""
    names = names_in(folder)
    damaged = drop_damaged(names)
    done = run_dvc("--cd", str(folder), "checkout", "--quiet", *targets, allowed=range(256))
    if done.returncode and has_remote():
        done = run_dvc("--cd", str(folder), "pull", "--quiet", *targets, allowed=range(256))
    if done.returncode:
        remote = "nor in the remote" if has_remote() else "and there is no remote"
        were = f"; {len(damaged)} there were damaged" if damaged else ""
        raise OutsideError(
            f"{what} are not whole in the cache{were}, {remote} (see `dvc remote`)\n{done.stderr.strip()}"
        )
    if left := drop_damaged(names):
        raise OutsideError(f"{len(left)} of {what} came damaged from the remote; bring whole ones there")


def _there(folder: Path) -> list[Finding]:
    try:
        _bring(folder, [], "files of the record")
    except OutsideError as error:
        return [Finding(False, str(error))]
    status = run_dvc("--cd", str(folder), "status")
    clean = status.stdout.strip() == "Data and pipelines are up to date."
    said = "every file is there and has its recorded digest" if clean else f"files differ\n{status.stdout.strip()}"
    return [Finding(clean, said)]


def _run(folder: Path, recorded: Recorded, say: Callable[[str], None]) -> None:
    extra = {}
    if launch := recorded.tags.get(environment.LAUNCH_TAG):
        extra["AMOPO_LAUNCH"] = str(_launch_file(Path(launch), folder))
    command = ["repro", "--force", "--no-run-cache"]
    status, lines = run_live([*DVC, "--cd", str(folder), *command], say, extra)
    if status:
        tail = "\n".join(lines[-20:])
        raise OutsideError(f"{recorded.name} could not be made again\n{tail}")


def _launch_file(recorded: Path, folder: Path) -> Path:
    """The file that started the run's ranks: the commit's own; one that git did not hold, from here."""
    if (folder / recorded).is_file():
        return recorded
    if recorded.is_file():
        return recorded.resolve()
    raise OutsideError(
        f"the run was started with the launch file {recorded} (AMOPO_LAUNCH), which its commit does not hold and which"
        f" is not here; put it back, with as many processes as the run's tag {environment.RANKS_TAG} says"
    )


def _tagged(what: str, tag: str | None, found: str | None) -> Finding:
    if tag is None:
        return Finding(True, f"{what}: {found}; the record has no tag to hold it against")
    if tag == found:
        return Finding(True, f"{what}: {found}, as the tag says")
    return Finding(False, f"{what}: {found}; the tag says {tag}")


def _numbers(folder: Path) -> dict[str, float]:
    path = folder / METRICS
    found: Any = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
