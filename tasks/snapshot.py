"""A commit that holds the workspace as it is, made beside it: no file, no index and no branch moves.

`dvc exp save` stashes what the user has changed, takes it back and commits: whoever kills it in between leaves the
parameters and the lock file of the last commit behind. Here git writes an index of its own, and the reference last.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks import git
from tasks.errors import OutsideError


def save(name: str, message: str) -> str:
    """The commit of every file that git knows, changed and staged ones included, and of those that runs make.

    It hangs on the checked-out commit under the reference of a DVC experiment, so `dvc exp show`, `dvc exp push` and
    `dvc exp apply` know it; an earlier one of that name is replaced.

    Raises:
        OutsideError: git failed; nothing has changed then.
    """
    base = git.head()
    with TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        own = Path(_git("rev-parse", "--git-path", "index"))
        if own.exists():
            shutil.copyfile(own, index)
        environment = git.stand_in_author() | {"GIT_INDEX_FILE": str(index)}
        _git("add", "--update", extra=environment)
        if made := git.untracked():
            _git("add", "--", *made, extra=environment)
        tree = _git("write-tree", extra=environment)
        commit = _git("commit-tree", tree, "-p", base, "-m", message, extra=environment)
    _git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", commit)
    return commit


def _git(*arguments: str, extra: Mapping[str, str] | None = None) -> str:
    environment = os.environ | dict(extra or {})
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise OutsideError(f"the run could not be recorded: git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()
