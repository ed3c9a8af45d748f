"""Installed packages against what pyproject.toml allows and constraints.txt pins."""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from amopo_core.doctor.finding import Finding, ok, warn, wrong

if TYPE_CHECKING:
    from amopo_core.doctor.examine import Site

PROJECT, PINS = Path("pyproject.toml"), Path("constraints.txt")
MEND = "`make setup`, or pip install -c constraints.txt -e ."


def check(site: Site) -> Iterator[Finding]:
    """Versions outside their range are wrong; versions that are not the pinned ones are untested."""
    if not PROJECT.is_file():
        yield warn(f"no {PROJECT} here", "run in the project's root")
        return
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    clashes = list(outside(project))
    for clash in clashes:
        yield wrong(clash, MEND)
    if not clashes:
        yield ok(f"Python {platform.python_version()} and {len(project['dependencies'])} packages are in their ranges")
    if PINS.is_file():
        yield _pinned(PINS.read_text(encoding="utf-8"))


def outside(project: dict[str, Any]) -> Iterator[str]:
    """What is installed outside its range, or missing; optional packages count where they are installed."""
    if not SpecifierSet(project["requires-python"]).contains(platform.python_version()):
        yield f"Python is {platform.python_version()}; expected {project['requires-python']}"
    for required in project["dependencies"]:
        yield from _clash(Requirement(required), optional=False)
    for extra in project.get("optional-dependencies", {}).values():
        for required in extra:
            yield from _clash(Requirement(required), optional=True)


def not_pinned(pins: str) -> list[str]:
    """`package installed (pinned)` for each that is installed in another version than its pin."""
    differing = []
    for line in pins.splitlines():
        try:
            pin = Requirement(line.partition("#")[0].strip())
        except InvalidRequirement:
            continue
        installed = _installed(pin.name)
        if installed and not pin.specifier.contains(installed, prereleases=True):
            differing.append(f"{pin.name} {installed} ({pin.specifier})")
    return differing


def _pinned(pins: str) -> Finding:
    differing = not_pinned(pins)
    if not differing:
        return ok(f"every package is as {PINS} pins it")
    return warn(f"other versions than {PINS} pins, untested together: {', '.join(differing)}", MEND)


def _clash(required: Requirement, *, optional: bool) -> Iterator[str]:
    if required.marker and not required.marker.evaluate():
        return
    installed = _installed(required.name)
    if installed is None:
        if not optional:
            yield f"{required.name} is not installed; expected {required.specifier or 'any version'}"
    elif not required.specifier.contains(installed, prereleases=True):
        yield f"{required.name} is {installed}; expected {required.specifier}"


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
