"""How the handler answers: well, unless it is told otherwise, by its caller or by a file that may change as it runs."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Annotated, Literal

import msgspec

Answer = Literal["ACK", "RETRY", "DROP"]
LOOK_SECONDS = 0.02
"""How long a change of the control file may go unnoticed."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class Behaviour(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do with what comes; 0 and false are off. `retry: 10` concerns every tenth entry of all that came."""

    retry: Count = 0
    """Of so many entries one is answered RETRY, and is not stored as taken."""
    drop: Count = 0
    """Of so many entries one is answered DROP."""
    error: Count = 0
    """Of so many notifications of states one is answered ERROR."""
    throttle_ms: Count = 0
    """What every answer to a forwarded line asks for."""
    stall: bool = False
    """Take no entry and answer no call, with all connections open."""
    away: bool = False
    """Answer every call UNAVAILABLE, and cut open streams."""
    cut_after: Count = 0
    """Cut each stream when it has brought so many entries, the last of them stored and not answered."""
    die_after: Count = 0
    """End as if killed when so many entries have come, the last of them stored and not answered."""
    max_workers: Count = 0
    """Answer SERVER_FULL to workers that register beyond so many."""
    rate_limit: Count = 0
    """LoggingConfig: lines a second of one worker."""
    buffer_size: Count = 0
    """LoggingConfig: lines that a worker holds back."""
    max_message_size: Count = 0
    """LoggingConfig: bytes of one line."""
    include_metadata: bool = True
    """LoggingConfig: whether entries carry metadata."""

    def answer(self, number: int) -> Answer:
        """The answer to the entry with this number, from 1."""
        if self.retry and number % self.retry == 0:
            return "RETRY"
        return "DROP" if self.drop and number % self.drop == 0 else "ACK"


class Control:
    """The behaviour now. `base` holds where the file, a JSON object, says nothing; without a file it holds always.

    A file that cannot be understood changes nothing, and `problem` says why.
    """

    def __init__(self, base: Behaviour, file: Path | None = None) -> None:
        self.base = base
        self.problem = ""
        self._file = file
        self._read: Behaviour | None = None
        self._stamp: tuple[int, int] | None = None
        self._next_look = 0.0
        self._lock = threading.Lock()

    @property
    def now(self) -> Behaviour:
        """What to do at this instant; cheap enough for every entry."""
        if self._file is not None and time.monotonic() >= self._next_look:
            with self._lock:
                self._look(self._file)
        return self._read or self.base

    def _look(self, file: Path) -> None:
        self._next_look = time.monotonic() + LOOK_SECONDS
        try:
            stat = file.stat()
        except OSError:
            self._stamp = self._read = None
            return
        stamp = (stat.st_mtime_ns, stat.st_size)
        if stamp == self._stamp:
            return
        try:
            changes = msgspec.json.decode(file.read_bytes(), type=dict[str, object])
            self._read = msgspec.convert({**msgspec.to_builtins(self.base), **changes}, Behaviour)
            self.problem = ""
        except (OSError, ValueError) as error:  # ValueError: of msgspec, too
            self.problem = f"{file}: {error}"
        self._stamp = stamp
