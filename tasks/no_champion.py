"""The champion's folder before there is a champion: it says so, and evaluate-champion has something to read."""

from __future__ import annotations

import shutil

from amopo_core.atomic import write_json
from tasks.dvc_command import CHAMPION

_NOTE = CHAMPION / "no_champion.json"


def write_no_champion() -> None:
    """Make the folder say that there is no champion."""
    if not _NOTE.exists():
        shutil.rmtree(CHAMPION, ignore_errors=True)
        write_json(_NOTE, {"reason": "no version has been promoted yet"})


def ensure_champion_folder() -> None:
    """Make the folder where there is none, so that `dvc repro` alone can bring every stage up to date."""
    if not CHAMPION.exists():
        write_no_champion()
