"""dvc.yaml says of every stage what its code says: the modules it imports and the sections of params.yaml it reads."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from amopo_core.config import Params
from tasks.lock import CANDIDATE

ROOT = Path(__file__).parents[2]
PIPELINE: dict[str, dict[str, Any]] = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
JUDGE = "${evaluation.judge}"
PLAYGROUND_JUDGE = "amopo_core/judges/playground.py"
"""Stands in for `evaluation.judge`, whatever params.yaml names: the judge that imports what a stage does not."""
PROPERTIES = {"view_names": {"views", "dimensions"}}
"""Properties of Params and the sections they are made of."""
BY_KEY = {"promotion"}
"""Sections of which stages list the keys they read: a verdict's limits change nothing that a stage makes."""


def module_file(name: str) -> Path | None:
    """The file of a first-party module; None for anything else and for packages, whose files hold no code."""
    file = ROOT / f"{name.replace('.', '/')}.py"
    return file if re.fullmatch(r"amopo_core(\.\w+)+", name) and file.is_file() else None


def named_modules(file: Path) -> Iterator[Path]:
    """First-party modules that a file imports anywhere in it, or names in a text, as for `python -m`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value]
        yield from filter(None, map(module_file, names))


def closure(files: set[Path]) -> set[Path]:
    """The files and all that they import, transitively."""
    found, waiting = set(), list(files)
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += named_modules(file)
    return found


def read_sections(files: set[Path]) -> set[str]:
    """Sections that are read as `params.SECTION`, or keys as `params.SECTION.KEY`."""
    sections = set()
    for file in files:
        nodes = [
            node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Attribute)
        ]
        keys = {node.value: f"{node.value.attr}.{node.attr}" for node in nodes if isinstance(node.value, ast.Attribute)}
        for node in nodes:
            if isinstance(node.value, ast.Name) and node.value.id == "params":
                name = keys.get(node, node.attr) if node.attr in BY_KEY else node.attr
                sections |= PROPERTIES.get(name, {name} if node.attr in Params.model_fields else set())
    return sections


def code_of(stage: str) -> set[Path]:
    """Every file that decides what a stage does; a judge, which a parameter names, counts as imported."""
    command = PIPELINE[stage]["cmd"].split()
    start = module_file(command[command.index("-m") + 1])
    assert start is not None, command
    judge = {ROOT / PLAYGROUND_JUDGE} if JUDGE in PIPELINE[stage]["deps"] else set()
    return closure({start} | judge)


def stages_of_the_flow() -> list[str]:
    """The stages that the flow runs, in the order of its lines."""
    calls = [
        node for node in ast.walk(ast.parse((ROOT / "flows/retrain.py").read_text())) if isinstance(node, ast.Call)
    ]
    runs = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "run_stage"]
    return [ast.literal_eval(run.args[0]) for run in sorted(runs, key=lambda run: (run.lineno, run.col_offset))]


@pytest.mark.parametrize("stage", PIPELINE)
def test_deps_are_the_imports(stage: str) -> None:
    listed = {PLAYGROUND_JUDGE if dep == JUDGE else dep for dep in PIPELINE[stage]["deps"]}

    assert {dep for dep in listed if dep.endswith(".py")} == {str(file.relative_to(ROOT)) for file in code_of(stage)}


@pytest.mark.parametrize("stage", PIPELINE)
def test_params_are_the_sections_that_the_code_reads(stage: str) -> None:
    assert set(PIPELINE[stage]["params"]) == read_sections(code_of(stage))


@pytest.mark.parametrize("stage", PIPELINE)
def test_dvc_is_the_parent_of_a_stage(stage: str) -> None:
    """A stage ends with its parent: a shell between the two would outlive a killed DVC, and the stage with it."""
    assert PIPELINE[stage]["cmd"].startswith("exec python -m ")


@pytest.mark.parametrize("stage", PIPELINE)
def test_every_path_of_the_command_is_declared(stage: str) -> None:
    """A path that a command writes and no output names would be neither cached nor removed."""
    said = PIPELINE[stage]
    metrics = [path for metric in said["metrics"] for path in metric]
    declared = [*said["deps"], *said.get("outs", []), *metrics, *said.get("plots", [])]
    paths = [word for word in said["cmd"].split() if "/" in word]

    assert all(any(f"{known}/".startswith(f"{path}/") for known in declared) for path in paths)


def test_packages_hold_no_code() -> None:
    """What the walk leaves out may not decide a result."""
    for file in (ROOT / "amopo_core").rglob("__init__.py"):
        statements = ast.parse(file.read_text(encoding="utf-8")).body
        assert all(isinstance(statement, ast.Expr) for statement in statements), file


def test_the_base_knows_no_data_and_the_champion_concerns_what_measures_it() -> None:
    assert not any(dep.startswith("data/") and not dep.endswith(".py") for dep in PIPELINE["base"]["deps"])
    concerned = [name for name, stage in PIPELINE.items() if "models/champion" in stage["deps"]]
    assert concerned == ["evaluate-champion", "guardrails"]


def test_the_flow_walks_every_stage_after_what_it_needs() -> None:
    order = stages_of_the_flow()
    made: set[str] = {"data/decisions.jsonl", "data/feedback", "models/champion"}

    assert sorted(order) == sorted(PIPELINE)
    assert set(PIPELINE) - set(CANDIDATE) == {"normalize", "quality", "evaluate-champion", "guardrails"}
    for name in order:
        assert {dep for dep in PIPELINE[name]["deps"] if dep.startswith(("data/", "models/"))} <= made
        made |= set(PIPELINE[name].get("outs", []))
