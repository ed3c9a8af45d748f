"""params.yaml read and changed: what is wrong in it is named with file, line, key and the line's content."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError

from amopo_core.atomic import replacing
from amopo_core.config import Params
from amopo_core.errors import UserError, located

PARAMS_FILE = Path("params.yaml")


def read_params(path: Path = PARAMS_FILE) -> Params:
    """The parameters of a file.

    Raises:
        UserError: with file, line, key and the line's content for every key that is misspelt, missing or ill-typed.
    """
    return _validated(_parsed(path, _text(path)), path, _text(path))


def override(path: Path, assignments: Sequence[str]) -> Params:
    """Write `section.key=value` assignments into a parameter file, all of them or none; comments and layout stay.

    Values are read as YAML. Nothing is written unless the whole result is valid.

    Raises:
        UserError: an assignment without `=`, a key that does not exist, or a result that is not valid.
    """
    text = _text(path)
    document = _parsed(path, text)
    for assignment in assignments:
        _assign(document, assignment)
    buffer = StringIO()
    _yaml().dump(document, buffer)
    changed = buffer.getvalue()
    params = _validated(_parsed(path, changed), path, changed)
    if changed != text:
        with replacing(path) as file:
            file.write(changed)
    return params


def _yaml() -> YAML:
    yaml = YAML()
    yaml.width = 120
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{path} is not here; run this in the project's folder, or bring the file back with git"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from None


def _parsed(path: Path, text: str) -> CommentedMap:
    try:
        document = _yaml().load(text)
    except MarkedYAMLError as error:
        line = (error.problem_mark.line if error.problem_mark else 0) + 1
        raise located(path, line, f"not YAML: {error.problem}") from None
    if not isinstance(document, CommentedMap):
        raise UserError(f"{path} holds no sections; bring the file back with git")
    return document


def _validated(document: CommentedMap, path: Path, text: str) -> Params:
    try:
        return Params.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        problems = [_problem(document, path, text.splitlines(), dict(details)) for details in error.errors()]
        raise UserError("\n".join(problems)) from None


def _problem(document: CommentedMap, path: Path, lines: list[str], details: Mapping[str, Any]) -> str:
    """One line for one mistake: file, line, key, what is wrong, what stands there."""
    keys = [str(key) for place, key in enumerate(details["loc"]) if place == 0 or key not in _TAGS]
    said = str(details["msg"]).removeprefix("Value error, ")
    if not keys:  # a check across sections begins its message with the key
        name, _, said = said.partition(": ")
        keys = name.split(".")
    if details["type"] == "extra_forbidden":
        said = f"no such key{_nearest(keys)}"
    if details["type"] == "missing":
        said = "this key is missing"
    line = _line_of(document, keys)
    place = f"{path}:{line}: " if line else f"{path}: "
    content = f"   (line: {lines[line - 1].strip()})" if line and line <= len(lines) else ""
    return f"{place}{'.'.join(keys)}: {said}{content}"


_TAGS = ("[key]", "playground", "folder", "hub")
"""What pydantic puts into the place of a mistake without it being a key of the file."""


def _nearest(keys: Sequence[str]) -> str:
    """`; did you mean learning_rate?` where a declared key of the section is spelt nearly the same."""
    fields = Params.model_fields
    if len(keys) > 1:
        annotation = fields[str(keys[0])].annotation if str(keys[0]) in fields else None
        fields = getattr(annotation, "model_fields", {})
    near = get_close_matches(str(keys[-1]), list(fields), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _line_of(document: Any, keys: Sequence[str]) -> int:
    """The 1-based line of the deepest key that exists; 0 where none does."""
    line, here = 0, document
    for key in keys:
        if not isinstance(here, CommentedMap) or key not in here:
            break
        line = here.lc.key(key)[0] + 1
        here = here[key]
    return line


def _assign(document: CommentedMap, assignment: str) -> None:
    key, equals, value = assignment.partition("=")
    if not equals or not key:
        raise UserError(f"--set {assignment}: expected section.key=value, for example --set train.learning_rate=1e-4")
    *parents, last = key.split(".")
    here: Any = document
    for depth, parent in enumerate(parents):
        if not isinstance(here, CommentedMap) or parent not in here:
            raise UserError(f"--set {assignment}: there is no `{'.'.join(parents[: depth + 1])}` in the parameter file")
        here = here[parent]
    if not isinstance(here, CommentedMap):
        raise UserError(f"--set {assignment}: `{'.'.join(parents)}` holds a value, not keys")
    try:
        here[last] = _yaml().load(value)
    except MarkedYAMLError as error:
        raise UserError(f"--set {assignment}: the value is not YAML: {error.problem}") from None
