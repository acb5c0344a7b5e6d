"""Faults on demand: slow, refused, cut, silent, late. A switch for tests in the process, and for those outside.

A fault says what happens, to which requests (verb, path), how often (`times`) and how surely (`probability`, from a
seeded source, so that a run can be repeated). Faults of watches also reach the watches that are already open.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, get_args

import msgspec
import trio

from .exchange import Send

FaultKind = Literal[
    "latency",  # the request waits `seconds` before it is carried out
    "reject",  # answered with `status` (429 and 5xx), `retry_after` seconds named, not carried out
    "reset_before",  # the connection is reset, the request not carried out
    "reset_after",  # the request is carried out, the connection reset instead of an answer
    "late",  # carried out `seconds` after its client has left; no answer
    "silence",  # never carried out, never answered
    "accept_silent",  # new connections are accepted, then nothing is said, not even TLS: say how long it `lasts`
    "watch_silent",  # the watch stays open and sends nothing more
    "watch_cut",  # the watch ends after `seconds`
    "watch_delayed",  # each event comes `seconds` later
]
_WATCH_KINDS = ("watch_silent", "watch_cut", "watch_delayed")


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What goes wrong, where, how often. `path` is a regular expression looked for in the request's path."""

    kind: FaultKind
    verb: str = "*"  # get, list, watch, create, update, patch, delete, deletecollection, or *
    path: str = ""
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None  # None: until it is taken away
    lasts: Annotated[float, msgspec.Meta(gt=0)] | None = None  # seconds until it takes itself away; None: it stays
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] = 503
    retry_after: Annotated[int, msgspec.Meta(ge=0)] | None = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.path)
        except re.error as error:
            raise ValueError(f"path {self.path!r}: expected a regular expression ({error})") from None


class OpenWatch:
    """A watch as faults see it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_silent = False
        self.delay = 0.0
        self.scope = trio.CancelScope()

    async def send(self, send: Send, lines: bytes) -> None:
        """Send events as the faults let them through."""
        if self.delay:
            await trio.sleep(self.delay)
        if not self.is_silent:
            await send(lines)

    def suffer(self, fault: Fault) -> None:
        """Let a fault of watches happen to this one."""
        if fault.kind == "watch_silent":
            self.is_silent = True
        elif fault.kind == "watch_delayed":
            self.delay = fault.seconds
        elif fault.seconds:
            self.scope.deadline = min(self.scope.deadline, trio.current_time() + fault.seconds)
        else:
            self.scope.cancel(reason="fault: watch cut")


class Faults:
    """All faults that are switched on, in the order in which they were added."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._faults: dict[int, Fault] = {}
        self._left: dict[int, int | None] = {}
        self._until: dict[int, float] = {}
        self._watches: list[OpenWatch] = []
        self._next = 1

    def add(self, fault: Fault) -> int:
        """Switch one on; its number, to take it away again. Open watches suffer it at once."""
        number, self._next = self._next, self._next + 1
        self._faults[number], self._left[number] = fault, fault.times
        if fault.lasts is not None:
            self._until[number] = trio.current_time() + fault.lasts
        if fault.kind in _WATCH_KINDS:
            for watch in tuple(self._watches):
                if self._happens(number, fault, "watch", watch.path):
                    watch.suffer(fault)
        return number

    def remove(self, number: int) -> None:
        """Switch one off; nothing happens where it has used itself up."""
        for kept in (self._faults, self._left, self._until):
            kept.pop(number, None)

    def clear(self) -> None:
        """Switch all off. What open watches suffer, they keep."""
        for kept in (self._faults, self._left, self._until):
            kept.clear()

    def statistics(self) -> list[dict[str, object]]:
        """The faults that are on, with their numbers and how often they will still happen."""
        self._forget_old()
        return [
            {"number": number, "left": self._left[number], "fault": msgspec.to_builtins(fault)}
            for number, fault in self._faults.items()
        ]

    def take(self, verb: str, path: str) -> list[Fault]:
        """The faults that happen to this request now; each counts as one time."""
        return self._take(verb, path, tuple(set(get_args(FaultKind)) - {*_WATCH_KINDS, "accept_silent"}))

    def take_connection(self) -> bool:
        """Whether a new connection stays silent."""
        return bool(self._take("*", "", ("accept_silent",)))

    @contextmanager
    def open_watch(self, path: str) -> Iterator[OpenWatch]:
        """A watch is open: it suffers what is on now and what is added while it lasts."""
        watch = OpenWatch(path)
        for fault in self._take("watch", path, _WATCH_KINDS):
            watch.suffer(fault)
        self._watches.append(watch)
        try:
            with watch.scope:
                yield watch
        finally:
            self._watches.remove(watch)

    def _take(self, verb: str, path: str, kinds: tuple[str, ...]) -> list[Fault]:
        self._forget_old()
        candidates = [(n, fault) for n, fault in self._faults.items() if fault.kind in kinds]
        return [fault for n, fault in candidates if self._happens(n, fault, verb, path)]

    def _forget_old(self) -> None:
        for number in [n for n, until in self._until.items() if trio.current_time() >= until]:
            self.remove(number)

    def _happens(self, number: int, fault: Fault, verb: str, path: str) -> bool:
        if (fault.verb not in ("*", verb) and verb != "*") or not re.search(fault.path, path):
            return False
        if fault.probability < 1 and self._random.random() >= fault.probability:
            return False
        left = self._left[number]
        if left is not None:
            self._left[number] = left - 1
            if left == 1:
                self.remove(number)
        return True
