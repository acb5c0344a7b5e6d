"""What otto-handler is told of lines, gaps and states."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottoscaler.logs.encoding import encode_line
from ottoscaler.logs.lines import LogLine
from ottoscaler.logs.mark import Gap
from ottoscaler.logs.messages import Who, Wording
from ottoscaler.logs.printing import PrintedWording
from ottoscaler.logs.words import LEVELS, read_words
from ottoscaler.outcomes import WorkerOutcome
from ottoscaler.pods import PodRecord
from ottoscaler.rpc.v1.worker_logs_pb2 import WorkerLogEntry, WorkerStatusNotification

WHO = Who("otto-agent-1-5-0", "task-1", "5-0", 1, 2, "otto")
STAMP = "2026-11-20T20:41:21.140944177Z"


@pytest.mark.parametrize(
    ("text", "level", "source"),
    [
        (b"hello", "info", ""),
        (b"ERROR it broke", "error", ""),
        (b"2026-11-20 20:41:21,123 [WARNING] careful", "warn", ""),
        (b"ERRORS are counted", "info", ""),
        (b'time=x level=error msg="y"', "error", ""),
        (b'{"level": "warn", "logger": "db"}', "warn", "db"),
        (b'{"level": 50, "source": "http"}', "error", "http"),
        (b'{"severity": "CRITICAL"}', "fatal", ""),
        (b'{"level": ["odd"]}', "info", ""),
        (b'{"level": "err', "info", ""),
        (b"\xff\xfe", "info", ""),
        (b'{"level": "ERROR", "source": {"file": "main.go", "line": 7}}', "error", ""),
        (b'{"severity": 17, "level": "error", "logger": "db"}', "error", "db"),
        (b'{"level": "error", "source": "\xff"}', "error", ""),
        (b'{"level": "\xff", "severity": "WARNING"}', "warn", ""),
        (b'{"level": "error", "a": ' + b"[" * 60_000, "info", ""),
        (b'{"level": ' + b"9" * 9000 + b"}", "info", ""),
        (b'{"source": "\\ud800"}', "info", ""),
        (b'{"source": "\\ud800", "level": "error", "logger": "db"}', "error", "db"),
        (b'{"message": "half \\ud83d", "level": "error", "source": "db"}', "error", "db"),
        (b'{"loss": NaN, "level": "warn", "logger": "train", "source": "\xff"}', "warn", "train"),
        (b'{"loss": -Infinity, "level": 40}', "warn", ""),
    ],
)
def test_level_and_source_are_what_the_line_says(text: bytes, level: str, source: str) -> None:
    """From JSON and from plain text, and the defaults where nothing is said."""
    assert read_words(text) == (level, source)


def test_lines_and_states_name_their_trace() -> None:
    """Beside what a line's metadata says of itself, and only where there is a trace."""
    wording = Wording(msgspec.structs.replace(WHO, traceparent="00-t"))
    entry = WorkerLogEntry.FromString(wording.encode(LogLine(STAMP, b"x", 0, 7)))
    assert dict(entry.metadata) == {"traceparent": "00-t", "line": "7"}
    assert WorkerStatusNotification.FromString(wording.created(None, 0.0)).metadata["traceparent"] == "00-t"
    assert "traceparent" not in WorkerLogEntry.FromString(Wording(WHO).encode(LogLine(STAMP, b"x", 0, 7))).metadata


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message(text: bytes) -> None:
    """Whatever a worker writes can be sent, and where it was text it is unchanged."""
    entry = WorkerLogEntry.FromString(Wording(WHO).encode(LogLine(STAMP, text, 0, 7)))
    try:
        assert entry.message == text.decode()
        assert "escaped" not in entry.metadata
    except UnicodeDecodeError:
        assert entry.metadata["escaped"] == "true"


NAMES = ["level", "severity", "source", "logger", "component"]
SAID = [
    b'"error"',
    b'"a\xffb"',
    b"50",
    b"1e999",
    b"[[1]]",
    b"{}",
    b"null",
    b'"\\u0000"',
    b'"\xed\xa0\x80"',
    b"[" * 5000,
]
ODD = [b"{", b"}", b"]", b",", b'"', b'"\\ud800"', b'"\\ud83d\\ude00"']
PIECES = [*[b'"%b":' % name.encode() for name in NAMES], *SAID, *ODD]
LIKE_JSON = st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=12).map(b"".join)
OBJECTS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(SAID)).map(
    lambda fields: b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), said) for name, said in fields.items())
)


@given(LIKE_JSON.map(lambda rest: b"{" + rest) | OBJECTS | st.binary(max_size=60).map(lambda rest: b"{" + rest))
def test_whatever_begins_like_json_is_a_message(text: bytes) -> None:
    """No bytes of a worker keep its line from being sent, and its level is one that there is."""
    level, _ = read_words(text)
    assert level in LEVELS
    assert WorkerLogEntry.FromString(Wording(WHO).encode(LogLine(STAMP, text, 0, 7))).level == level
    assert PrintedWording(WHO, as_json=True).encode(LogLine(STAMP, text, 0, 7)).endswith(b"}\n")


@given(
    stamp=st.text(max_size=40),
    level=st.sampled_from(sorted(LEVELS)),
    source=st.text(max_size=300),
    text=st.text(max_size=300) | st.integers(0, 70_000).map(lambda size: "x" * size),
    number=st.integers(0, 1 << 62),
    flags=st.sampled_from([(), ("escaped",), ("escaped", "continued")]),
)
def test_a_line_is_encoded_as_protobuf_does(
    stamp: str, level: str, source: str, text: str, number: int, flags: tuple[str, ...]
) -> None:
    """The bytes written by hand mean what the generated class would have written, whatever is in the fields."""
    metadata = {"line": str(number), **dict.fromkeys(flags, "true")}
    expected = WorkerLogEntry(timestamp=stamp, level=level, source=source, message=text, metadata=metadata)
    raw = encode_line(stamp, level, source, text.encode(), number, flags)
    assert WorkerLogEntry.FromString(raw) == expected


def test_a_line_carries_all_that_the_contract_names() -> None:
    """Worker, task, stamp, number, and where the pod is."""
    wording = Wording(WHO)
    wording.place(PodRecord(name=WHO.name, node="node-7", created_at=1_700_000_000.0))
    entry = WorkerLogEntry.FromString(wording.encode(LogLine(STAMP, b"WARN so", 0, 41, more=True)))
    assert (entry.worker_id, entry.task_id, entry.timestamp, entry.level, entry.source, entry.message) == (
        "otto-agent-1-5-0",
        "task-1",
        STAMP,
        "warn",
        "worker",
        "WARN so",
    )
    assert dict(entry.metadata) == {"line": "41", "continued": "true"}
    pod = entry.pod_metadata
    assert (pod.pod_name, pod.namespace, pod.node_name, pod.created_at) == (
        "otto-agent-1-5-0",
        "otto",
        "node-7",
        "2023-11-14T22:13:20.000Z",
    )
    assert pod.labels["ottoscaler/event-id"] == "5-0"


def test_a_gap_says_from_where_to_where_and_why() -> None:
    """A gap is an entry of its own, with no line number."""
    entry = WorkerLogEntry.FromString(Wording(WHO).encode(Gap("a", "b", "LogRotated", certain=False)))
    assert dict(entry.metadata) == {"gap": "LogRotated", "from": "a", "to": "b", "certain": "false"}
    assert entry.message == "lines may be missing between a and b: the kubelet began a new log file"
    assert (entry.level, entry.source) == ("warn", "ottoscaler")


def test_the_end_is_told_with_cause_and_reason() -> None:
    """Outcome, cause, reason and exit code reach the handler."""
    outcome = WorkerOutcome(WHO.name, 1, 2, "failed", "OOMKilled", "too much", 137, retry_at=5.0)
    told = WorkerStatusNotification.FromString(Wording(WHO).ended(outcome, 1_700_000_000.0))
    assert (told.status, told.reason, told.timestamp) == (
        WorkerStatusNotification.FAILED,
        "too much",
        "2023-11-14T22:13:20.000Z",
    )
    assert dict(told.metadata) == {
        "event_id": "5-0",
        "index": "1",
        "attempt": "2",
        "cause": "OOMKilled",
        "exit_code": "137",
        "retried": "true",
    }
