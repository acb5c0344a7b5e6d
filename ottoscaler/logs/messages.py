"""Lines, gaps and states of one worker as the messages that otto-handler takes.

What is the same for all entries of a worker is written once: two encoded messages one after the other are, in protobuf,
the message of both. Text that is no UTF-8 is escaped (`\\xff`), for a protobuf string takes nothing else, and
`metadata["escaped"]` says so.
"""

from __future__ import annotations

import msgspec

from ottoscaler.fleet import PodRecord
from ottoscaler.logs.encoding import encode_line
from ottoscaler.logs.lines import LogLine
from ottoscaler.logs.mark import Entry, Gap
from ottoscaler.logs.words import read_words
from ottoscaler.outcomes import WorkerOutcome, rfc3339
from ottoscaler.pods import ATTEMPT_LABEL, EVENT_LABEL, INDEX_LABEL, TASK_LABEL
from ottoscaler.rpc.v1.worker_logs_pb2 import WorkerLogEntry, WorkerMetadata, WorkerStatusNotification

CONTAINER_SOURCE, OWN_SOURCE = "worker", "ottoscaler"
WHYS = {
    "LogRotated": "the kubelet began a new log file",
    "OpenedLate": "the log could first be read long after the worker's start",
    "PodGone": "the pod was gone before its log was read to the end",
    "EndNotRead": "the pod was gone with the end of its container, before its log was read once more",
    "EndNotSeen": "the end of the worker's container was never seen",
    "GraceOver": "nobody took the lines within the grace",
    "Crowded": "nobody took the lines while too many events waited for that",
    "TooLarge": "otto-handler takes no message that is so large",
    "Broken": "following the log broke",
}
"""Why lines are missing."""


_NO_FLAGS: tuple[str, ...] = ()


class Who(msgspec.Struct, frozen=True):
    """Whose lines these are."""

    name: str
    task_id: str
    event_id: str
    index: int
    attempt: int
    namespace: str
    container: str = "worker"
    traceparent: str = ""


class Wording:
    """Writes the messages of one worker."""

    def __init__(self, who: Who) -> None:
        self.who = who
        self._same = b""
        self._is_placed = False

    def place(self, record: PodRecord | None) -> None:
        """Say from now on where the pod is."""
        if self._is_placed and self._same:
            return
        who = self.who
        self._is_placed = record is not None and bool(record.node)
        labels = {EVENT_LABEL: who.event_id, INDEX_LABEL: str(who.index), ATTEMPT_LABEL: str(who.attempt)}
        pod = WorkerMetadata(
            pod_name=who.name,
            namespace=who.namespace,
            node_name=record.node if record else "",
            created_at=rfc3339(record.created_at) if record else "",
            labels=labels | ({TASK_LABEL: who.task_id} if who.task_id else {}),
        )
        self._same = WorkerLogEntry(
            worker_id=who.name, task_id=who.task_id, pod_metadata=pod, metadata=_trace(who)
        ).SerializeToString()

    def encode(self, entry: Entry) -> bytes:
        """One `WorkerLogEntry`, encoded."""
        if not self._same:
            self.place(None)
        if isinstance(entry, Gap):
            return self._same + self._gap(entry).SerializeToString()
        return self._same + _line(entry)

    def _gap(self, gap: Gap) -> WorkerLogEntry:
        metadata = {"gap": gap.why, "from": gap.begin, "to": gap.end, "certain": str(gap.certain).lower()}
        return WorkerLogEntry(
            timestamp=gap.end or gap.begin, level="warn", source=OWN_SOURCE, message=say_gap(gap), metadata=metadata
        )

    def created(self, record: PodRecord | None, now: float) -> bytes:
        """The pod was made."""
        return self._state("CREATED", (record and record.created_at) or now, "", {})

    def running(self, started_at: float, record: PodRecord | None) -> bytes:
        """The container began."""
        return self._state("RUNNING", started_at, "", {"node": record.node if record else ""})

    def ended(self, outcome: WorkerOutcome, now: float) -> bytes:
        """The worker ended: how, and why."""
        status = {"succeeded": "COMPLETED", "failed": "FAILED", "terminated": "TERMINATED"}[outcome.outcome]
        facts = {"cause": outcome.cause, "completed_at": outcome.completed_at, "started_at": outcome.started_at}
        if outcome.exit_code is not None:
            facts["exit_code"] = str(outcome.exit_code)
        if outcome.retry_at:
            facts["retried"] = "true"
        return self._state(status, now, outcome.reason, facts)

    def _state(self, status: str, at: float | None, reason: str, facts: dict[str, str]) -> bytes:
        who = self.who
        same = {"event_id": who.event_id, "index": str(who.index), "attempt": str(who.attempt), **_trace(who)}
        return WorkerStatusNotification(
            worker_id=who.name,
            task_id=who.task_id,
            status=status,
            timestamp=rfc3339(at),
            reason=reason,
            metadata=same | {name: fact for name, fact in facts.items() if fact},
        ).SerializeToString()


def _trace(who: Who) -> dict[str, str]:
    """The trace of which a worker's lines and states are a part, where there is one."""
    return {"traceparent": who.traceparent} if who.traceparent else {}


def _line(line: LogLine) -> bytes:
    text, flags = line.text, _NO_FLAGS
    level, source = read_words(text)
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            text, flags = text.decode(errors="backslashreplace").encode(), ("escaped",)
    if line.more:
        flags = (*flags, "continued")
    return encode_line(line.stamp, level, source or CONTAINER_SOURCE, text, line.number, flags)


def say_gap(gap: Gap) -> str:
    """A gap as a sentence for people."""
    between = f"between {gap.begin or 'the beginning'} and {gap.end or 'the end'}"
    return f"lines {'are' if gap.certain else 'may be'} missing {between}: {WHYS.get(gap.why, gap.why)}"
