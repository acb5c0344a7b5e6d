"""The promise about crashes of Redis: what survives one, and whether there may have been one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerReport:
    """What the server says of itself; None where it does not say. `promise` is a sentence on what survives a crash,
    `strangers` has one on each of our keys that holds something else.
    """

    version: str
    append_only: bool | None
    fsync: str | None
    eviction: str | None
    promise: str
    strangers: tuple[str, ...] = ()


class Safekeeping(ABC):
    """The part of `Stream` that knows what a crash of Redis costs; failures as there."""

    @property
    @abstractmethod
    def restarts(self) -> int:
        """A number that grows with each chance that Redis crashed, and forgot what it had acknowledged and not yet
        written to its disk: with every new connection. Who recorded something, waits until that is durable and finds
        another number than before the recording has to look whether it is still there.
        """

    @abstractmethod
    async def wait_durable(self) -> None:
        """Return when all that this process recorded before the call would survive a `kill -9` of Redis, as far as its
        configuration promises it: WAITAOF where there is an append-only file and the server knows it, at once with
        fsync `always`, without persistence or in memory, else after 3 s. Had Redis crashed meanwhile, `restarts` has
        grown by then."""

    @abstractmethod
    async def report(self) -> ServerReport:
        """Version, persistence and eviction policy of the server, and keys of ours that hold something else."""
