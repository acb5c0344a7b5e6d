"""What the in-memory twin of Redis holds, and the harm that tests can do to it.

One `MemoryServer` is shared by the streams of all sessions, as one Redis is. Its contents are plain dictionaries under
the same names as the keys; `as_keys()` gives them as Redis would.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import trio

from ottoscaler.stream.base import Era, GroupLost
from ottoscaler.stream.entry_id import parse_id
from ottoscaler.stream.keys import DEFAULT_GROUP, Keys
from ottoscaler.stream.memory_log import Group, Log
from ottoscaler.stream.retention import Retention

Weather = Literal["fine", "refusing", "silent"]
Text = str | bytes


@dataclass(slots=True)
class Tended:
    """What the last `tend` of a session gave it."""

    call: int
    notices: tuple[str, ...]
    taken: tuple[str, ...]


class MemoryServer:
    """The state that all sessions share.

    `clock` gives monotonic seconds; `started_at` is the Unix time (seconds) that belongs to its first reading. For
    tests: `weather` (`refusing`: every call fails; `silent`: calls wait until it is another), and `lose_answer_of`,
    names of methods whose next call is carried out but fails all the same.
    """

    def __init__(
        self,
        keys: Keys | None = None,
        *,
        retention: Retention | None = None,
        clock: Callable[[], float] = trio.current_time,
        started_at: float | None = None,
    ) -> None:
        self.keys = keys or Keys("otto:scale:events", DEFAULT_GROUP)
        self.retention = retention or Retention()
        self.lose_answer_of: set[str] = set()
        self.changed = trio.Event()
        self._clock = clock
        self._started_at = time.time() if started_at is None else started_at
        self._clock_start: float | None = None
        self._weather: Weather = "fine"
        self.flush()

    def flush(self) -> None:
        """Forget everything, as FLUSHALL does."""
        self.events = Log()
        self.results = Log()
        self.dead_letters = Log()
        self.results_kept = [0, 0]  # entries, bytes
        self.era: Era | None = None
        self.sessions: dict[str, int] = {}
        self.outages: dict[str, str] = {}
        self.held: defaultdict[str, set[str]] = defaultdict(set)
        self.notices: defaultdict[str, set[str]] = defaultdict(set)
        self.tended: dict[str, Tended] = {}
        self.offered: dict[str, dict[str, int]] = {"work": {}, "control": {}, "pipelines": {}}
        self.fences: dict[tuple[str, str], int] = {}
        self.slots: dict[str, int] = {}
        self.progress: dict[str, dict[str, str]] = {}
        self.done: dict[str, tuple[str, int]] = {}
        self.tokens: dict[str, tuple[str, int]] = {}
        self.requests: dict[str, dict[str, str]] = {}
        self.requests_until: dict[str, int] = {}  # of events that have ended: when (ms) their request ids are free
        self.requested: dict[str, str] = {}  # event that has not ended → its request id
        self.replayed: dict[str, tuple[str, int]] = {}
        self.news: dict[str, list[str]] = {}
        self.news_until: dict[str, int] = {}  # of pipelines that have ended: when (ms) their news go
        self.wake()

    @property
    def weather(self) -> Weather:
        """How the server answers at present."""
        return self._weather

    @weather.setter
    def weather(self, weather: Weather) -> None:
        self._weather = weather
        self.wake()

    def wake(self) -> None:
        """Let everybody who waits for a change look again."""
        self.changed.set()
        self.changed = trio.Event()

    def now(self) -> int:
        """Server time, Unix milliseconds."""
        reading = self._clock()
        if self._clock_start is None:
            self._clock_start = reading
        return int((self._started_at + reading - self._clock_start) * 1000)

    def add_entry(self, pairs: Iterable[tuple[Text, Text]]) -> str:
        """XADD to the event stream, as a foreign producer does it."""
        entry_id = self.events.add(((_bytes(name), _bytes(value)) for name, value in pairs), self.now())
        self.wake()
        return entry_id

    def add_group(self, name: str) -> None:
        """Another consumer group on the event stream, which has read nothing yet."""
        self.events.groups[name] = Group((0, 0))

    def refuse_past(self, era: str) -> None:
        """Refuse a session that began in another era, by `GroupLost`; empty = it began in none."""
        if era and (self.era is None or self.era.id != era):
            raise GroupLost("the era of this session is over")

    def group(self) -> Group:
        """Our consumer group. Raises `GroupLost`."""
        if group := self.events.groups.get(self.keys.group):
            return group
        raise GroupLost(f"the consumer group {self.keys.group} of {self.keys.stream} is gone")

    def log(self, which: str) -> Log:
        """The stream of `results` or of dead letters (`dlq`)."""
        return self.results if which == "results" else self.dead_letters

    def ending(self, event_id: str) -> str | None:
        """The `done` key of an event, while it is kept."""
        text, until = self.done.get(event_id, ("", 0))
        return text if until > self.now() else None

    def remember(self, kept: dict[str, tuple[str, int]], key: str, text: str, milliseconds: int) -> None:
        """SET with an expiry, in `done`, `tokens` or `replayed`; what has expired there goes, oldest first."""
        now = self.now()
        kept[key] = (text, now + milliseconds)
        for oldest in list(itertools.takewhile(lambda each: kept[each][1] <= now, kept)):
            del kept[oldest]

    def is_held(self, event_id: str, session: str, epoch: int) -> bool:
        """Whether the fencing token still stands: every writing script begins with it."""
        progress = self.progress.get(event_id, {})
        return progress.get("owner") == session and progress.get("epoch") == str(epoch)

    def live_ids(self) -> list[str]:
        """Events with progress, oldest first."""
        return sorted(self.progress, key=parse_id)

    def as_keys(self) -> dict[str, Any]:
        """All keys with their values as Redis shows them; streams as lists of entries, expiry times left out."""
        keys, now = self.keys, self.now()
        shown: dict[str, Any] = {
            keys.stream: list(self.events.entries.values()),
            keys.results: list(self.results.entries.values()),
            keys.dead_letters: list(self.dead_letters.entries.values()),
            keys.sessions: dict(self.sessions),
            keys.outages: dict(self.outages),
            keys.live: {id_: parse_id(id_)[0] for id_ in self.progress},
            keys.slots: {session: str(count) for session, count in self.slots.items()},
            keys.requests: dict(self.requested),
            keys.fences: {text_of(fence): due for fence, due in self.fences.items()},
        }
        if self.results_kept != [0, 0]:
            shown[keys.results_kept] = dict(zip(("entries", "bytes"), map(str, self.results_kept), strict=True))
        if self.era:
            shown[keys.era] = {"id": self.era.id, "namespace": self.era.namespace, "created": str(self.era.created)}
        shown |= {keys.held(session): set(ids) for session, ids in self.held.items()}
        shown |= {keys.notices(session): set(ids) for session, ids in self.notices.items()}
        shown |= {keys.offered(lane): dict(ids) for lane, ids in self.offered.items()}
        shown |= {keys.progress(id_): dict(fields) for id_, fields in self.progress.items()}
        shown |= {keys.done(id_): text for id_, (text, until) in self.done.items() if until > now}
        shown |= {keys.replayed(id_): text for id_, (text, until) in self.replayed.items() if until > now}
        shown |= {keys.token(token): text for token, (text, until) in self.tokens.items() if until > now}
        shown |= {
            keys.request(id_): dict(fields)
            for id_, fields in self.requests.items()
            if self.requests_until.get(id_, now + 1) > now
        }
        shown |= {
            keys.news(id_): [((b"news", text.encode()),) for text in texts]
            for id_, texts in self.news.items()
            if self.news_until.get(id_, now + 1) > now
        }
        shown |= {
            keys.tended(session): {
                "call": str(last.call),
                "notices": text_of(last.notices),
                "taken": text_of(last.taken),
            }
            for session, last in self.tended.items()
        }
        return {key: value for key, value in shown.items() if value}


def due(scores: dict[str, int], now: int, limit: int) -> list[str]:
    """ZRANGEBYSCORE -inf now LIMIT 0 limit: members in order of score, equal ones in order of their bytes."""
    members = sorted((score, member) for member, score in scores.items() if score <= now)
    return [member for _, member in members[: max(limit, 0)]]


def text_of(value: Any) -> str:
    """Compact JSON."""
    return msgspec.json.encode(value).decode()


def _bytes(text: Text) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
