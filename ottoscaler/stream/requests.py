"""The promise about requests: an event that was asked for under a name is added once, and many are looked at together.

A *request id* is a caller's own name for what it asks. While its key stands, from the first asking until a day after
the event has ended, whoever asks again under it is told the event that there is already. The key is written in the same
script as the event, or, for an entry that somebody else added with `otto.request_id`, in the script that registers it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec


@dataclass(frozen=True, slots=True)
class Requested:
    """What became of a request: `new` = the event was added by this call (also where it is repeated with its token),
    `known` = it was asked for before, with the same content; `other` = before, with other content. `event_id` is the
    event that stands.
    """

    event_id: str
    how: Literal["new", "known", "other"]


@dataclass(frozen=True, slots=True)
class Request:
    """What the key of a request id holds. Once the event has ended also `planned`, its number of workers, and the
    indices of those whose pod the API never accepted; None and empty before, and where it never began. `kept` is what
    the event's last owner wanted kept of the result, empty where there is none; `token` that of the call that added the
    event, empty where it was no call.
    """

    event_id: str
    content: str
    planned: int | None = None
    not_created: tuple[int, ...] = ()
    kept: str = ""
    token: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one event is, in numbers of workers.

    `waiting`: not registered yet, or in the hands of a newer version.
    `live`: `created` workers had a pod that the API accepted, `not_created` ended
    without one, `ended` of the `planned` have ended; `trouble` is the cause and the sentence of what last kept one of
    them from starting or ending, `task_id` its task, `retried` how many attempts failed and were followed by another.
    `ended`: `ending` says whether with a result (`results`) or as a
    dead letter (`dlq`). `nowhere`: Redis knows nothing of it, as its entry was trimmed away or its end is more than a
    day ago.
    """

    where: Literal["waiting", "live", "ended", "nowhere"]
    planned: int = 0
    created: int = 0
    not_created: int = 0
    ended: int = 0
    trouble: tuple[str, str] = ("", "")
    task_id: str = ""
    ending: str = ""
    retried: int = 0

    @property
    def is_answered(self) -> bool:
        """Whether every pod was accepted by the API or will never be."""
        return self.where in ("ended", "nowhere") or (
            self.where == "live" and self.created + self.not_created >= self.planned
        )


def decode_request(fields: Mapping[str, str]) -> Request:
    """The hash of a request id as a record."""
    planned = int(fields["planned"]) if "planned" in fields else None
    not_created = msgspec.json.decode(fields.get("not_created", "[]"), type=tuple[int, ...])
    return Request(
        fields["event"], fields["content"], planned, not_created, fields.get("kept", ""), fields.get("token", "")
    )


def live_standing(
    numbers: Sequence[str | bytes | None],
    trouble: str | bytes | None,
    task_id: str | bytes | None,
    retried: str | bytes | None,
) -> Standing:
    """Of the fields `planned`, `created`, `not_created`, `ended` in this order, `trouble`, `task_id` and `retried`."""
    planned, created, not_created, ended = (int(number or 0) for number in numbers)
    said = msgspec.json.decode(trouble) if trouble else {}
    task = task_id.decode("utf-8", "replace") if isinstance(task_id, bytes) else task_id or ""
    why = (said.get("cause", ""), said.get("reason", ""))
    return Standing("live", planned, created, not_created, ended, why, task, retried=int(retried or 0))


class Requests(ABC):
    """What a stream offers to those who ask for events and wait for them."""

    @abstractmethod
    async def request(self, pairs: Sequence[tuple[str, str]], request_id: str, content: str, token: str) -> Requested:
        """Add an event, once per request id; without one (empty) once per token within an hour. `content` is the hash
        that equal requests share, with others behind it, after spaces, under which it may be kept already; a call that
        is repeated with its `token` is answered as the first time.
        """

    @abstractmethod
    async def read_request(self, request_id: str) -> Request | None:
        """What stands under a request id, None where nothing does."""

    @abstractmethod
    async def look(self, event_ids: Collection[str]) -> dict[str, Standing]:
        """How each of these events stands, at a cost that does not grow with their workers."""

    @abstractmethod
    async def read_results_back(self, before: str, count: int) -> list[tuple[str, dict[str, str]]]:
        """Up to `count` results that are older than an entry (empty: of all), the newest first."""
