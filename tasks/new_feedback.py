"""Feedback that waits to be taken in: rows of the inbox's files, and of sources that can count what is new there."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

from amopo_core.config import Params, Source, SqlFetch
from amopo_core.data.batches import last_watermark
from amopo_core.data.reading import read_rows
from amopo_core.errors import UserError
from tasks.dvc_command import FEEDBACK
from tasks.errors import OutsideError
from tasks.inbox import waiting_files


@dataclass(frozen=True)
class Waiting:
    """What a look at inbox and sources found."""

    rows: int = 0
    """New rows of declared sources, as far as they could be counted."""
    oldest: float | None = None
    """When the oldest file whose rows count was last written to [seconds since 1970]."""
    growing: tuple[str, ...] = ()
    """Files that somebody is writing: they were other at the look before. Their rows do not count yet."""
    uncounted: tuple[str, ...] = ()
    """Sources that cannot tell how much is new."""
    problems: tuple[str, ...] = ()
    """What could not be looked at, a sentence each."""
    picture: Hashable = None
    """The same picture is the same feedback."""


@dataclass(frozen=True)
class _File:
    """A file as it was at a look."""

    size: int
    written: float


class Lookout:
    """Looks again and again, and reads a file only once two looks have found it the same, and only once."""

    def __init__(self) -> None:
        self._before: dict[Path, _File] = {}
        self._counted: dict[tuple[Path, _File], int] = {}

    def look(self, params: Params, *, ask_sources: bool) -> Waiting:
        """What waits now. Never raises for a file or a source: these are problems, or left to the run that takes them.

        Args:
            params: the sources; files of others are stored by a run, and not trained on, so they start none.
            ask_sources: whether the sources with `fetch` are asked.
        """
        problems: list[str] = []
        files = self._files(params, problems)
        growing = tuple(str(path) for path, file in files.items() if self._before.get(path, file) != file)
        settled = {path: file for path, file in files.items() if self._before.get(path) == file}
        self._before = files
        self._counted = {(path, file): self._rows(path, file, problems) for path, file in settled.items()}
        asked = {name: source for name, source in params.sources.items() if ask_sources and source.fetch}
        found = {name: _new_rows(name, source, problems) for name, source in asked.items()}
        counts = {name: count for name, count in found.items() if count is not None}
        return Waiting(
            rows=sum(self._counted.values()) + sum(counts.values()),
            oldest=min((file.written for file in settled.values()), default=None),
            growing=growing,
            uncounted=tuple(name for name in found if name not in counts),
            problems=tuple(problems),
            picture=(tuple(sorted(settled.items(), key=str)), tuple(counts.items())),
        )

    def _files(self, params: Params, problems: list[str]) -> dict[Path, _File]:
        found = {}
        try:
            for path in waiting_files():
                if path.parent.name in params.sources:
                    stat = path.stat()
                    found[path] = _File(stat.st_size, stat.st_mtime)
        except UserError as error:
            problems.append(str(error))
        except FileNotFoundError:
            return self._files(params, problems)  # a run has just taken it
        return found

    def _rows(self, path: Path, file: _File, problems: list[str]) -> int:
        """A file that cannot be read counts as one row: the run that refuses it says what is wrong."""
        if (path, file) in self._counted:
            return self._counted[path, file]
        try:
            return sum(1 for _ in read_rows(path))
        except UserError as error:
            problems.append(str(error))
            return 1


def _new_rows(name: str, source: Source, problems: list[str]) -> int | None:
    """How many rows are new in a source's outside system; None where it cannot tell or does not answer."""
    if not isinstance(source.fetch, SqlFetch):
        return None
    from tasks import sql

    try:
        return sql.count_new(source.fetch, last_watermark(FEEDBACK, name))
    except (UserError, OutsideError) as error:
        problems.append(f"sources.{name}.fetch: {error}")
        return None
