"""Noticing that files have changed, by asking when it matters: one `stat` for each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

SETTLED_NS = 2_000_000_000
"""A file changed less than this ago may be changed again without a new time: clocks of file systems are coarse."""


class WatchedFiles:
    """Some files that belong together. A Kubernetes Secret swaps all of its files at once, behind a link."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = tuple(map(Path, paths))
        self._seen = self._look()

    def has_changed(self) -> bool:
        """Whether any was changed, made or removed since this last said yes (or since the beginning)."""
        before, self._seen = self._seen, self._look()
        return self._seen != before

    def _look(self) -> tuple[object, ...]:
        return tuple(map(_mark, self._paths))


def _mark(path: Path) -> object:
    """What differs when a file's content does; a file that changed just now counts as changing still."""
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    is_settled = abs(time.time_ns() - found.st_mtime_ns) > SETTLED_NS
    return found.st_ino, found.st_size, found.st_mtime_ns, is_settled
