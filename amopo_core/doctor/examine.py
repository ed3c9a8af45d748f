"""Every check in its turn; one that fails hides none of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from textwrap import shorten
from typing import TypeVar

from amopo_core.config import Params
from amopo_core.doctor.finding import Finding, ok, wrong
from amopo_core.errors import UserError
from amopo_core.params_file import PARAMS_FILE, read_params
from amopo_core.training.launch import Launch, launch_file, read_launch

T = TypeVar("T")

TOPICS = ("devices", "ranks", "precision", "kernels", "disk", "versions", "base")
"""The checks in their order; each is a module of this package with the function `check`."""


@dataclass(frozen=True)
class Site:
    """What is examined."""

    params: Params | None
    """params.yaml; None where it is missing or wrong."""
    launch: Launch | None
    """The launch file; None where it is missing or wrong."""


def examine() -> Iterator[tuple[str, Finding]]:
    """What each check finds in the current folder and on this machine, with the topic, as it is found."""
    params, said = _tried(read_params, f"{PARAMS_FILE} is valid")
    yield "parameters", said
    path = launch_file()
    launch, said = _tried(lambda: read_launch(path), f"{path} is an accelerate launch file")
    yield "launch", said
    site = Site(params, launch)
    for topic in TOPICS:
        for finding in _checked(topic, site):
            yield topic, finding


def _tried(read: Callable[[], T], said: str) -> tuple[T | None, Finding]:
    try:
        return read(), ok(said)
    except (UserError, OSError) as error:
        return None, wrong(_one_line(error))


def _checked(topic: str, site: Site) -> Iterator[Finding]:
    try:
        check: Callable[[Site], Iterator[Finding]] = import_module(f"amopo_core.doctor.{topic}").check
        yield from check(site)
    except UserError as error:
        yield wrong(_one_line(error))
    except Exception as error:  # a broken package or driver raises anything
        what = f"the check itself failed: {type(error).__name__}: {_one_line(error)}"
        yield wrong(what, "a package or a driver may be broken: `make setup`, then once more")


def _one_line(error: Exception) -> str:
    return shorten(str(error), 400)
