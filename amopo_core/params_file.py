"""params.yaml read and changed: what is wrong in it is named with file, line, key and the line's content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from amopo_core.atomic import replacing
from amopo_core.config import Params
from amopo_core.errors import UserError, located

PARAMS_FILE = Path("params.yaml")
Document = TypeVar("Document", bound=BaseModel)


class _NotYaml(Exception):
    """Text that YAML cannot read: the 1-based line, 0 where it is not known, and what is wrong there."""

    def __init__(self, line: int, said: str) -> None:
        super().__init__(said)
        self.line, self.said = line, said


def read_params(path: Path = PARAMS_FILE) -> Params:
    """The parameters of a file.

    Raises:
        UserError: with file, line, key and the line's content for every key that is misspelt, missing or ill-typed.
    """
    return read_sections(path, Params)


def read_sections(path: Path, model: type[Document]) -> Document:
    """A YAML file of sections as the frozen class that declares them.

    Raises:
        UserError: as of `read_params`.
    """
    text = _text(path)
    return _validated(_parsed(path, text), path, text, model)


def override(path: Path, assignments: Sequence[str], check: Callable[[Params], None] = lambda _: None) -> Params:
    """Write `section.key=value` assignments into a parameter file, all of them or none; comments and line ends stay.

    Values are read as YAML. Nothing is written unless the whole result is valid and `check`, which raises what is
    wrong with it, lets it pass; without assignments, nothing ever.

    Raises:
        UserError: an assignment without `=`, a key that does not exist, or a result that is not valid.
    """
    if not assignments:
        params = read_params(path)
        check(params)
        return params
    text = _text(path)
    document = _parsed(path, text)
    for assignment in assignments:
        _assign(document, assignment)
    changed = _dumped(document)
    params = _validated(_parsed(path, changed), path, changed, Params, assignments)
    check(params)
    if "\r\n" in text:
        changed = changed.replace("\n", "\r\n")
    with replacing(path) as file:
        file.write(changed)
    return params


def _yaml() -> YAML:
    yaml = YAML()
    yaml.width = 1 << 30  # long lines stay long
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _text(path: Path) -> str:
    """The file's text with its line ends as they are."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{path} is not here; run this in the project's folder, or bring the file back with git"
        ) from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; move it away and bring the file back with git") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from None


def _parsed(path: Path, text: str) -> CommentedMap:
    try:
        document = _loaded(text)
    except _NotYaml as error:
        said = f"not YAML: {error.said}"
        raise (located(path, error.line, said) if error.line else UserError(f"{path}: {said}")) from None
    if not isinstance(document, CommentedMap):
        raise UserError(
            f"{path} holds no sections; expected keys with their values, `section:` and below it `key: value`"
        )
    return document


def _loaded(text: str) -> Any:
    try:
        return _yaml().load(text.replace("\r\n", "\n"))
    except MarkedYAMLError as error:
        raise _NotYaml((error.problem_mark.line if error.problem_mark else 0) + 1, str(error.problem)) from None
    except ReaderError as error:
        line = text.replace("\r\n", "\n").count("\n", 0, error.position) + 1
        raise _NotYaml(line, f"the control character U+{error.character:04X}; remove it") from None
    except (ValueError, LookupError, ArithmeticError, RecursionError) as error:
        # What looks like a date and is none, what its tag does not fit, what is nested without end.
        raise _NotYaml(0, f"a value cannot be read: {error}") from None


def _dumped(document: CommentedMap) -> str:
    buffer = StringIO()
    _yaml().dump(document, buffer)
    return buffer.getvalue()


def _validated(
    document: CommentedMap, path: Path, text: str, model: type[Document], assignments: Sequence[str] = ()
) -> Document:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        lines = text.splitlines()
        problems = [_problem(document, path, lines, details, model, assignments) for details in error.errors()]
        raise UserError("\n".join(problems)) from None


def _problem(
    document: CommentedMap,
    path: Path,
    lines: Sequence[str],
    details: ErrorDetails,
    model: type[BaseModel],
    assignments: Sequence[str],
) -> str:
    """One line for one mistake: file and line or the assignment, key, what is wrong, what stands there."""
    keys, line = _place(document, (*details["loc"], *details.get("ctx", {}).get("keys", ())))
    said = details["msg"]
    if details["type"] == "extra_forbidden":
        said = f"no such key{_nearest(model, keys)}"
    if details["type"] == "missing":
        said = "this key is missing"
    if details["type"] == "model_type":
        said = f"a section with keys of its own belongs here, and {details['input']!r} stands here"
    for assignment in assignments:
        assigned = assignment.partition("=")[0].split(".")
        if assigned == keys[: len(assigned)]:
            return f"--set {assignment}: {'.'.join(keys)}: {said}"
    place = f"{path}:{line}: " if line else f"{path}: "
    content = f"   (line: {lines[line - 1].strip()})" if line else ""
    return f"{place}{'.'.join(keys)}: {said}{content}"


def _place(document: Any, loc: Sequence[str | int]) -> tuple[list[str], int]:
    """The keys that lead to a mistake, and the 1-based line of the deepest one that exists; 0 where none does.

    Left out is what pydantic adds and no key says: the kind of a base within `base`, `[key]` behind a key.
    """
    keys, line, here = [], 0, document
    for depth, part in enumerate(loc, start=1):
        if isinstance(here, CommentedMap) and part in here:
            line, here = here.lc.key(part)[0] + 1, here[part]
        elif isinstance(here, CommentedSeq) and isinstance(part, int) and part < len(here):
            line, here = here.lc.item(part)[0] + 1, here[part]
        elif depth < len(loc) or part == "[key]":
            continue
        keys.append(str(part))
    return keys, line


def _nearest(model: type[BaseModel], keys: Sequence[str]) -> str:
    """`; did you mean learning_rate?` where a declared key of the section is spelt nearly the same.

    Of a key without its section, the section: `; did you mean train.learning_rate?`
    """
    if len(keys) == 1 and (sections := _sections_with(model, keys[0])):
        return f"; did you mean {' or '.join(f'{section}.{keys[0]}' for section in sections)}?"
    models: list[Any] = [model]
    for key in (key for key in keys[:-1] if not key.isdigit()):  # a place in a list
        models = [inner for outer in models for inner in _models(outer.model_fields, key)]
    names = [name for known in models for name in known.model_fields]
    return _near(keys[-1], names)


def _sections_with(model: type[BaseModel], key: str) -> list[str]:
    return [
        name
        for name in model.model_fields
        if any(key in inner.model_fields for inner in _models(model.model_fields, name))
    ]


def _near(key: str, names: Iterable[object]) -> str:
    near = get_close_matches(key, map(str, names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _models(fields: Mapping[str, FieldInfo], key: str) -> Iterator[type[BaseModel]]:
    """The sections that a key may hold, one of several kinds or none among them."""
    waiting = [fields[key].annotation] if key in fields else []
    while waiting:
        annotation = waiting.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield annotation
        else:
            waiting += get_args(annotation)


def _assign(document: CommentedMap, assignment: str) -> None:
    key, equals, value = assignment.partition("=")
    if not equals or not key:
        raise UserError(f"--set {assignment}: expected section.key=value, for example --set train.learning_rate=1e-4")
    *parents, last = key.split(".")
    here: Any = document
    for depth, parent in enumerate(parents):
        if not isinstance(here, CommentedMap) or parent not in here:
            near = _near(parent, here) if isinstance(here, CommentedMap) else ""
            missing = ".".join(parents[: depth + 1])
            raise UserError(f"--set {assignment}: there is no `{missing}` in the parameter file{near}")
        if here[parent] is None:  # a section that is empty so far
            here[parent] = CommentedMap()
        here = here[parent]
    if not isinstance(here, CommentedMap):
        raise UserError(f"--set {assignment}: `{'.'.join(parents)}` holds a value, not keys")
    try:
        here[last] = _loaded(value)
    except _NotYaml as error:
        raise UserError(f"--set {assignment}: the value is not YAML: {error.said}") from None
