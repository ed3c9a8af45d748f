"""Python's garbage collector in a process that imports large libraries.

torch, transformers, MLflow and Prefect make some 700,000 objects that stay. As Python sets it up, the collector goes
through them again and again while they are made, and once more when the process ends: two fifths of the time that the
imports take.
"""

from __future__ import annotations

import atexit
import gc

_NEW_OBJECTS = 10_000
"""New objects after which the collector looks for garbage among them; 700 is Python's number."""


def look_less_often() -> None:
    """Look for garbage more rarely, and not at the end; call it in a process of one's own, before its imports."""
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)
