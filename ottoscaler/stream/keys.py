"""Names of every key in Redis, all derived from the stream's name, so that a hash tag in it covers them all."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_GROUP = "ottoscaler"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one stream and consumer group.

    `stream` is the stream's own name; the prefix is that name without a final `:events`, followed by the
    group where it is not the default one, so that two groups on one stream never share a key.
    """

    stream: str
    group: str

    @property
    def prefix(self) -> str:
        """What every other key begins with, e.g. `otto:scale`."""
        base = self.stream.removesuffix(":events")
        return base if self.group == DEFAULT_GROUP else f"{base}:{self.group}"

    @property
    def results(self) -> str:
        """Stream of results, one entry per ended event."""
        return f"{self.prefix}:results"

    @property
    def results_kept(self) -> str:
        """Hash `entries`, `bytes`: how many results there are and how large, counted by the closing script."""
        return f"{self.prefix}:results:kept"

    @property
    def dead_letters(self) -> str:
        """Stream of dead letters, one entry per refused event."""
        return f"{self.prefix}:dlq"

    @property
    def sessions(self) -> str:
        """Sorted set: session → when it expires (server time, milliseconds)."""
        return f"{self.prefix}:sessions"

    @property
    def outages(self) -> str:
        """Hash: session → JSON on what it cannot reach; a session that reaches all is not in it."""
        return f"{self.prefix}:outages"

    @property
    def era(self) -> str:
        """Hash `id`, `namespace`, `created` (ms): which life of this Redis we are in."""
        return f"{self.prefix}:era"

    @property
    def live(self) -> str:
        """Sorted set of the events that have progress, by the time in their id (ms)."""
        return f"{self.prefix}:live"

    @property
    def marker(self) -> str:
        """String without a meaning, written so that WAITAOF has a write of its own connection to wait for."""
        return f"{self.prefix}:marker"

    @property
    def fences(self) -> str:
        """Sorted set of JSON `[pod name, uid]` that are to be deleted later, by when (ms)."""
        return f"{self.prefix}:fences"

    @property
    def slots(self) -> str:
        """Hash: session → worker slots that it holds of those that all share (MAX_WORKERS_TOTAL)."""
        return f"{self.prefix}:slots"

    def held(self, session: str) -> str:
        """Set of the event ids that a session holds."""
        return f"{self.prefix}:held:{session}"

    def notices(self, session: str) -> str:
        """Set of the event ids of a session in which another process changed something."""
        return f"{self.prefix}:notices:{session}"

    def tended(self, session: str) -> str:
        """Hash `call`, `notices`, `taken`: what a session's last `tend` gave, so that a repeat gives it again."""
        return f"{self.prefix}:tended:{session}"

    def offered(self, lane: str) -> str:
        """Sorted set of the events of a lane that nobody holds, by when they may be taken (ms)."""
        return f"{self.prefix}:offered:{lane}"

    def progress(self, event_id: str) -> str:
        """Hash: the one place that says how far an event is."""
        return f"{self.prefix}:progress:{event_id}"

    def done(self, event_id: str) -> str:
        """String, kept for a day after the close: `results <entry id>` or `dlq <entry id>`."""
        return f"{self.prefix}:done:{event_id}"

    def request(self, request_id: str) -> str:
        """Hash: what a caller's request id means, kept until a day after that event has ended."""
        return f"{self.prefix}:request:{request_id}"

    @property
    def requests(self) -> str:
        """Hash: event that has not ended → the request id that means it."""
        return f"{self.prefix}:requests"

    def news(self, event_id: str) -> str:
        """Stream: what changed in a pipeline, one entry each, with ids `1-0`, `2-0` ...; goes a day after its end."""
        return f"{self.prefix}:news:{event_id}"

    def replayed(self, letter_id: str) -> str:
        """String, kept for a day: the event that a dead letter became."""
        return f"{self.prefix}:replayed:{letter_id}"

    def token(self, token: str) -> str:
        """String, kept for an hour: the entry that a producer's call with this token added."""
        return f"{self.prefix}:token:{token}"
