"""git: whether this folder can be worked in, and which commit holds a recorded run."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from amopo_core.errors import UserError
from tasks.errors import OutsideError

_UNFINISHED = {
    "MERGE_HEAD": "merge",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
}
_EXPERIMENTS = "refs/exps"
"""Where DVC keeps experiments."""
_SOURCES = (":(glob)amopo_core/**/*.py", ":(glob)tasks/**/*.py", ":(glob)flows/**/*.py", "configs")
"""What decides a run's result beside its parameters and data."""
_RECORDED = (
    ":(glob)**/*.dvc",
    "data/decisions.jsonl",
    ":(glob)reports/**/*.json",
    "dvc.lock",
)
"""Untracked files that a run itself makes and that belong to its record: pointers, metrics. Anything else is the user's
own."""

_AT_THE_ROOT = ("dvc.yaml", "params.yaml", "amopo_core")
_FOLDERS = ("data/feedback", "data/inbox", "models", "reports", "logs", ".amopo")
"""What runs write into, as far as it is there."""


def require_workspace() -> None:
    """Refuse a folder that a run could not be recorded in; a merely dirty tree is fine.

    Raises:
        UserError: not the project's root, a file where a folder must be, not writable, no git, no repository of its
            own, or a merge under way.
    """
    if lacking := [name for name in _AT_THE_ROOT if not Path(name).exists()]:
        mend = "cd there" if len(lacking) == len(_AT_THE_ROOT) else "cd there, or bring it back with git"
        raise UserError(f"{Path.cwd()} is not the project's root: no {', '.join(lacking)} here; {mend}")
    if files := [name for name in _FOLDERS if Path(name).is_file()]:
        raise UserError(f"{files[0]} is a file where a folder must be: move it away")
    _require_writable()
    if shutil.which("git") is None:
        raise UserError("git is not installed, and a run is recorded as a git commit; install git")
    _require_own_repository()
    _require_nothing_unfinished()


def head() -> str:
    """The commit that is checked out."""
    return _git("rev-parse", "HEAD").strip()


def require_known_sources(*named: str) -> None:
    """Refuse code that git does not know: a record would take in what nobody meant to keep, or leave it out.

    Changes of files that git knows need no commit; the record holds them.

    Args:
        named: files that the parameters name, which may lie anywhere in the project.

    Raises:
        UserError: with the files' names.
    """
    if unknown := _untracked(*_SOURCES, *(f":(literal){path}" for path in named)):
        shown = ", ".join(unknown[:8]) + (f" and {len(unknown) - 8} more" if len(unknown) > 8 else "")
        raise UserError(
            f"git does not know {shown}, and a run is recorded with the code that made it; `git add` what belongs to"
            " the project (no commit is needed), move the rest away or name it in .gitignore"
        )


def untracked() -> list[str]:
    """Files that runs make, that a record needs and that git does not know yet: pointers, the lock file, metrics."""
    return _untracked(*_RECORDED)


def find_commit(name: str) -> str | None:
    """The commit of a name, a hash or an experiment, here or else at git's remote; None where nobody knows it."""
    found = _commit_here(name)
    if found is None and (remote := default_remote()):
        _fetch_experiments(remote)
        found = _commit_here(name)
    return found


def default_remote() -> str | None:
    """The remote that records are sent to: `origin`, else the only one there is; None without any."""
    remotes = _git("remote").split()
    return "origin" if "origin" in remotes else remotes[0] if len(remotes) == 1 else None


def file_at(commit: str, path: str) -> bytes | None:
    """A file in a commit; None where it holds none."""
    done = subprocess.run(["git", "show", f"{commit}:{path}"], capture_output=True, check=False)
    return None if done.returncode else done.stdout


@dataclass
class Worktree:
    """A folder of its own with what a commit holds."""

    folder: Path
    keep: bool = False
    """Whether it stays after its block."""


@contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Worktree]:
    """The commit's files in `folder`, apart from this one's, for as long as the block lasts.

    What an earlier block of the same folder left, kept or killed half-way, goes first.
    """
    remove_worktree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _git("worktree", "add", "--quiet", "--detach", str(folder), commit)
    made = Worktree(folder)
    try:
        yield made
    finally:
        if not made.keep:
            remove_worktree(folder)


def remove_worktree(folder: Path) -> None:
    """Remove a worktree, or a folder of several; nothing where there is none."""
    shutil.rmtree(folder, ignore_errors=True)
    _git("worktree", "prune")


def stand_in_author() -> dict[str, str]:
    """The variables that name an author where git's configuration has none, as on a new machine; else nothing."""
    if all(_configured(f"user.{part}") for part in ("name", "email")):
        return {}
    names = [f"GIT_{role}_{part}" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")]
    return {name: os.environ.get(name, "amopo") for name in names}


def _fetch_experiments(remote: str) -> None:
    """Bring DVC's experiments. A name that is known here stays with its commit: that of the remote may be older."""
    here = set(_git("for-each-ref", "--format=%(refname)", _EXPERIMENTS).split())
    there = [line.split("\t")[1] for line in _git("ls-remote", remote, f"{_EXPERIMENTS}/*").splitlines()]
    if there:
        wanted = [ref if ref in here else f"{ref}:{ref}" for ref in there]  # a bare name brings the commit alone
        _git("fetch", "--quiet", "--no-write-fetch-head", "--stdin", remote, given="\n".join(wanted))


def _commit_here(name: str) -> str | None:
    """A branch, tag, hash or experiment of this repository."""
    for line in _git("for-each-ref", "--format=%(objectname) %(refname)", _EXPERIMENTS).splitlines():
        commit, ref = line.split(" ", 1)
        if ref.rpartition("/")[2] == name:
            return commit
    command = ["git", "rev-parse", "--quiet", "--verify", "--end-of-options", f"{name}^{{commit}}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _untracked(*patterns: str) -> list[str]:
    listed = _git("ls-files", "-z", "--others", "--exclude-standard", "--", *patterns)
    return [path for path in listed.split("\0") if path]


def _configured(key: str) -> bool:
    return subprocess.run(["git", "config", key], capture_output=True, check=False).returncode == 0


def _require_writable() -> None:
    try:
        with tempfile.TemporaryFile(dir="."):
            pass
    except OSError as error:
        raise UserError(
            f"{Path.cwd()} cannot be written to ({error.strerror}); make it writable, or clone into a folder that is"
        ) from None


def _require_own_repository() -> None:
    try:
        root = Path(_git("rev-parse", "--show-toplevel").strip())
    except OutsideError as error:
        raise UserError(f"{Path.cwd()} is no git repository that can be used; git clone the project\n{error}") from None
    if root.resolve() != Path.cwd().resolve():
        raise UserError(
            f"this folder lies in a foreign git repository, {root}; clone the project to a place of its own"
        )
    if not _git("ls-files", "dvc.yaml"):
        raise UserError(f"the git repository {root} is a foreign one: it does not hold dvc.yaml; clone the project")


def _require_nothing_unfinished() -> None:
    folder = Path(_git("rev-parse", "--git-dir").strip())
    for name, what in _UNFINISHED.items():
        if (folder / name).exists():
            raise UserError(
                f"a {what} is in progress, and a run cannot be recorded on it;"
                f" finish it, or give it up with: git {what} --abort"
            )


def _git(*arguments: str, given: str | None = None) -> str:
    done = subprocess.run(["git", *arguments], input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OutsideError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
