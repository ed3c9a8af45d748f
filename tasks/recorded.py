"""A recorded run by one of its names: a version, an alias, an MLflow run, an experiment, a commit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from amopo_core.errors import UserError
from tasks import git, registry
from tasks.errors import OutsideError
from tasks.lock import Lock, parse_lock
from tasks.registry import Version
from tasks.tracking import COMMIT_TAG

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_SHORTEST_COMMIT = 7
"""Digits from which a number is taken for a commit's."""


@dataclass(frozen=True)
class Recorded:
    """The commit of a run, and what the registry says of it."""

    name: str
    """As a person says it: `version 3`, `commit 0123456789ab`."""
    commit: str
    tags: Mapping[str, str] = field(default_factory=dict)
    """Of the version; empty where only git knows the run."""

    @property
    def lock(self) -> Lock:
        """dvc.lock as it was recorded.

        Raises:
            UserError: the commit holds none: it is no recorded run.
        """
        text = git.file_at(self.commit, "dvc.lock")
        if text is None:
            raise UserError(f"{self.name} holds no dvc.lock: it is no recorded run; `amopo status` lists runs")
        return parse_lock(text.decode())


def find(name: str) -> Recorded:
    """The recorded run of that name, looked for in the registry, then in git here, then at git's remote.

    Raises:
        UserError: nobody knows the name, or the version names no commit.
        OutsideError: MLflow does not answer, or git cannot bring the commit.
    """
    found = _in_registry(name)
    if found is not None:
        return _recorded(found)
    commit = git.find_commit(name)
    if commit is None:
        raise UserError(
            f"no recorded run is called {name}; expected a version's number, champion, challenger, an MLflow run's id,"
            " an experiment's name or a commit; a run that has no version in `amopo status` was not recorded"
        )
    return Recorded(f"commit {commit[:12]}", commit)


def newest() -> Recorded:
    """The newest version.

    Raises:
        UserError: there is none.
    """
    version = registry.newest()
    if version is None:
        raise UserError("no version is registered yet; run `amopo retrain` first")
    return _recorded(version)


def _in_registry(name: str) -> Version | None:
    """The version of that number, alias or run; None for any other name."""
    if _RUN_ID.fullmatch(name):
        return registry.by_run(name)  # none: it may be the beginning of a commit
    is_number = name.isdecimal() and len(name) < _SHORTEST_COMMIT
    return registry.named(name) if is_number or name in (registry.CHAMPION, registry.CHALLENGER) else None


def _recorded(version: Version) -> Recorded:
    commit = version.tags.get(COMMIT_TAG)
    if not commit:
        raise UserError(f"version {version.number} names no commit: it was not registered by `amopo retrain`")
    if git.find_commit(commit) is None:
        raise OutsideError(
            f"version {version.number} was recorded in commit {commit[:12]}, which is neither here nor at git's remote;"
            " clone the repository that it was recorded in, or fetch refs/exps/* from it"
        )
    return Recorded(f"version {version.number}", commit, version.tags)
