"""The README's file map says of every module what the module says of itself."""

import ast
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("flows", "tasks", "amopo_core", "bench")


def modules():
    listed = subprocess.run(["git", "ls-files", "-z", *PACKAGES], cwd=ROOT, check=True, capture_output=True, text=True)
    return [Path(name) for name in listed.stdout.split("\0") if name.endswith(".py")]


def first_line(module):
    return ast.get_docstring(ast.parse((ROOT / module).read_text(encoding="utf-8"))).partition("\n")[0]


def name(module):
    return f"{module.parent}/" if module.name == "__init__.py" else str(module)


def test_every_module_is_in_the_map_with_its_own_first_line():
    expected = [f"| `{name(module)}` | {first_line(module)} |" for module in sorted(modules())]
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()

    assert [line for line in readme if line.startswith(tuple(f"| `{package}/" for package in PACKAGES))] == expected
