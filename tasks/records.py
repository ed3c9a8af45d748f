"""Which recorded states name given objects: git's commits, experiments among them, and registered versions."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from mlflow import MlflowClient

from tasks.errors import OutsideError
from tasks.objects import Objects
from tasks.registry import MODEL
from tasks.tracking import COMMIT_TAG, reaching_mlflow

_POINTERS = ("dvc.lock", "data/feedback.dvc")
_DIGESTS = ("data/feedback", "data/pairs")
"""Tags of a version: DVC's digest of what it was made from."""


@dataclass(frozen=True)
class Records:
    """What names the objects."""

    commits: Mapping[str, str]
    """Subject by commit: branches, the newest first, then experiments that merely kept the pointers."""
    versions: Sequence[str]
    """Numbers of registered versions."""


def records_naming(removed: Collection[str], objects: Objects) -> Records:
    """The commits on any branch, tag or experiment, and the versions, whose data include one of the objects."""

    @cache
    def names_one(blob: str) -> bool:
        return not objects.named_in(_git("cat-file", "blob", blob)).isdisjoint(removed)

    commits = {commit: subject for commit, subject in _commits() if any(map(names_one, _pointers(commit)))}
    with reaching_mlflow():
        versions = MlflowClient().search_model_versions(f"name = '{MODEL}'")
    hit = [
        int(version.version)
        for version in versions
        if version.tags.get(COMMIT_TAG) in commits
        or any(not objects.listed(version.tags[tag]).isdisjoint(removed) for tag in _DIGESTS if tag in version.tags)
    ]
    return Records(commits, [str(number) for number in sorted(hit)])


def _commits() -> list[tuple[str, str]]:
    """Every commit that changed a pointer, and the head of every experiment."""
    changed = _git("log", "--all", "--full-history", "--format=%H%x09%s", "--", *_POINTERS)
    heads = _git("for-each-ref", "--format=%(objectname)%09%(contents:subject)", "refs/exps")
    pairs = [tuple(line.split("\t", 1)) for line in (changed + heads).splitlines() if "\t" in line]
    return [(commit, subject) for commit, subject in pairs if len(commit) == 40]


def _pointers(commit: str) -> list[str]:
    """The blobs of the pointers in a commit."""
    return [line.split()[2] for line in _git("ls-tree", commit, "--", *_POINTERS).splitlines() if " blob " in line]


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise OutsideError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
