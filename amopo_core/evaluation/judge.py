"""The judge: whatever gives a generated response a score per dimension. Absent, evaluation is ranking only."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Protocol, runtime_checkable

from amopo_core.config import Playground
from amopo_core.data.tables import Message
from amopo_core.errors import UserError

_MODULE = "amopo_judge_file"
_MEND = "define JUDGE as an object with prompts(playground, n) and score(prompt, response), or as None: ranking only"


@runtime_checkable
class Judge(Protocol):
    """Scores responses; may bring held-out prompts of its own."""

    def prompts(self, playground: Playground, n: int) -> list[list[Message]]:
        """At most `n` prompts that occur in no feedback; none: the test split's prompts are used."""
        ...

    def score(self, prompt: Sequence[Message], response: str) -> Mapping[str, float]:
        """The score of every declared dimension, 1 (worst) to 5 (best), for any text."""
        ...


def load_judge(path: Path) -> Judge | None:
    """The JUDGE that a Python file of the project defines; None where it defines None: ranking only.

    Args:
        path: relative to the current folder, the project's; the file is code and is run.

    Raises:
        UserError: the path leaves the project, is no file, does not load, or defines no judge.
    """
    module = _run(_inside_project(path), path)
    if not hasattr(module, "JUDGE"):
        raise UserError(f"evaluation.judge: {path} defines no JUDGE; {_MEND}")
    judge = module.JUDGE
    if judge is None:
        return None
    if isinstance(judge, type) or not isinstance(judge, Judge):
        kind = f"the class {judge.__name__}" if isinstance(judge, type) else type(judge).__name__
        raise UserError(f"evaluation.judge: JUDGE of {path} is {kind}, which is no judge; {_MEND}")
    return judge


def _inside_project(path: Path) -> Path:
    project = Path.cwd().resolve()
    file = (project / path).resolve()
    if not file.is_relative_to(project):
        raise UserError(f"evaluation.judge: {path} leaves the project's folder; copy the file into the project")
    if not file.is_file():
        raise UserError(f"evaluation.judge: {path} is no file; name a Python file of the project that defines JUDGE")
    if file.suffix != ".py":
        raise UserError(f"evaluation.judge: {path} is no Python file (.py)")
    return file


def _run(file: Path, path: Path) -> ModuleType:
    spec = spec_from_file_location(_MODULE, file)
    assert spec is not None and spec.loader is not None, "a .py file always has a loader"
    module = module_from_spec(spec)
    sys.modules[_MODULE] = module  # dataclasses look their own module up while it loads
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the file is the user's: it may raise anything
        raise UserError(f"evaluation.judge: {path} does not load: {type(error).__name__}: {error}") from error
    return module
