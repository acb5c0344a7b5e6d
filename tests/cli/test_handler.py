"""`handler`: it takes what an otto-handler takes, stores it before it answers, and misbehaves exactly where told to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
import trustme

from ottoscaler.cli import build_parser, main
from ottoscaler.cli.handler import behaviour_from
from ottoscaler.otto_handler.behaviour import Behaviour, Control
from ottoscaler.otto_handler.server import OttoHandler, open_otto_handler
from ottoscaler.otto_handler.store import Stored, Told
from ottoscaler.rpc.v1.log_streaming_pb2 import LogEntry, LogResponse, RegistrationResponse, WorkerRegistration
from ottoscaler.rpc.v1.log_streaming_pb2_grpc import LogStreamingServiceStub
from ottoscaler.rpc.v1.worker_logs_pb2 import (
    LogForwardResponse,
    WorkerLogEntry,
    WorkerMetadata,
    WorkerStatusAck,
    WorkerStatusNotification,
)
from ottoscaler.rpc.v1.worker_logs_pb2_grpc import OttoHandlerLogServiceStub

ACK, RETRY, DROP = LogForwardResponse.ACK, LogForwardResponse.RETRY, LogForwardResponse.DROP


class Scene:
    """A handler in this process, clients of its two services, and what it took."""

    def __init__(self, handler: OttoHandler, channel: grpc.Channel, taken: list[tuple[str, dict[str, Any]]]) -> None:
        self.handler = handler
        self.taken = taken
        self.logs: Any = OttoHandlerLogServiceStub(channel)
        self.stream: Any = LogStreamingServiceStub(channel)

    def forward(self, count: int) -> list[LogForwardResponse]:
        """The answers to so many lines."""
        entries = [WorkerLogEntry(worker_id="w", message=f"line {number}") for number in range(1, count + 1)]
        return list(self.logs.ForwardWorkerLogs(iter(entries), timeout=30))


@contextmanager
def open_scene(behaviour: Behaviour | None = None, **options: Any) -> Iterator[Scene]:
    """A handler that behaves so, until the end of the block."""
    taken: list[tuple[str, dict[str, Any]]] = []
    sink = Told(lambda rpc, record: taken.append((rpc, record)))
    with open_otto_handler(sink, control=Control(behaviour or Behaviour()), **options) as handler:
        with grpc.insecure_channel(f"127.0.0.1:{handler.port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
            yield Scene(handler, channel, taken)


def test_every_line_is_answered_in_order() -> None:
    """Each entry is taken whole and answered ACK, with the handler's own count."""
    with open_scene() as scene:
        where = WorkerMetadata(pod_name="w", namespace="n", labels={"a": "b"})
        entry = WorkerLogEntry(
            worker_id="w", task_id="t", timestamp="2026-01-02T03:04:05Z", level="info", source="app", message="hello"
        )
        entry.pod_metadata.CopyFrom(where)
        entry.metadata["line"] = "1"
        answers = list(scene.logs.ForwardWorkerLogs(iter([entry, entry]), timeout=30))
    assert [(answer.status, answer.sequence) for answer in answers] == [(ACK, 1), (ACK, 2)]
    assert scene.taken[0] == (
        "ForwardWorkerLogs",
        {
            "worker_id": "w",
            "task_id": "t",
            "timestamp": "2026-01-02T03:04:05Z",
            "level": "info",
            "source": "app",
            "message": "hello",
            "metadata": {"line": "1"},
            "pod_metadata": {
                "pod_name": "w",
                "namespace": "n",
                "node_name": "",
                "created_at": "",
                "labels": {"a": "b"},
            },
            "answer": "ACK",
            "sequence": 1,
        },
    )


def test_one_of_so_many_is_refused() -> None:
    """`retry` and `drop` concern every N-th entry, `throttle_ms` every answer, `error` every N-th notification."""
    with open_scene(Behaviour(retry=3, drop=4, throttle_ms=7, error=2)) as scene:
        answers = scene.forward(6)
        states = [scene.logs.NotifyWorkerStatus(WorkerStatusNotification(worker_id="w", status="RUNNING"))]
        states.append(scene.logs.NotifyWorkerStatus(WorkerStatusNotification(worker_id="w", status="FAILED")))
    assert [answer.status for answer in answers] == [ACK, ACK, RETRY, DROP, ACK, RETRY]
    assert {answer.throttle_ms for answer in answers} == {7}
    assert [state.status for state in states] == [WorkerStatusAck.RECEIVED, WorkerStatusAck.ERROR]
    assert [record["status"] for rpc, record in scene.taken if rpc == "NotifyWorkerStatus"] == ["RUNNING", "FAILED"]


def test_workers_register() -> None:
    """A worker is registered once, not beyond the limit, not without a name; the answer says what it may send."""
    with open_scene(Behaviour(max_workers=1, rate_limit=5, buffer_size=6, max_message_size=7)) as scene:
        names = ["a", "a", "b", ""]
        answers = [scene.stream.RegisterWorker(WorkerRegistration(worker_id=name)) for name in names]
        lines = list(scene.stream.StreamLogs(iter([LogEntry(worker_id="a", message="x")]), timeout=30))
    kinds = RegistrationResponse
    assert [answer.status for answer in answers] == [
        kinds.SUCCESS,
        kinds.ALREADY_REGISTERED,
        kinds.SERVER_FULL,
        kinds.INVALID_REQUEST,
    ]
    config = answers[0].config
    assert (config.rate_limit, config.buffer_size, config.max_message_size, config.include_metadata) == (5, 6, 7, True)
    assert [line.status for line in lines] == [LogResponse.ACK]


def test_a_cut_stream_has_stored_what_it_did_not_answer() -> None:
    """`cut_after` ends a stream after the entry was kept and before it is answered, which is when repeats come from."""
    with open_scene(Behaviour(cut_after=2)) as scene:
        call = scene.logs.ForwardWorkerLogs(iter([WorkerLogEntry(message=str(number)) for number in range(5)]))
        answers = []
        with pytest.raises(grpc.RpcError) as refused:
            answers.extend(list(call))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert [record["message"] for _, record in scene.taken] == ["0", "1"]


def test_it_stalls_until_it_is_told_to_go_on() -> None:
    """While `stall` holds nothing is taken and nothing answered; afterwards all is."""
    with open_scene(Behaviour(stall=True)) as scene:
        call = scene.logs.NotifyWorkerStatus.future(WorkerStatusNotification(worker_id="w"), timeout=30)
        with pytest.raises(grpc.FutureTimeoutError):
            call.result(timeout=0.1)
        assert scene.taken == []
        scene.handler.control.base = Behaviour()
        assert call.result(timeout=30).status == WorkerStatusAck.RECEIVED


def test_away_is_unavailable_and_a_token_is_asked_for() -> None:
    """`away` answers UNAVAILABLE; with a token set, calls without it are UNAUTHENTICATED."""
    with open_scene(Behaviour(away=True), token="secret") as scene:
        codes = []
        for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", "Bearer secret"),)):
            with pytest.raises(grpc.RpcError) as refused:
                scene.stream.RegisterWorker(WorkerRegistration(worker_id="w"), metadata=metadata)
            codes.append(refused.value.code().name)
    assert codes == ["UNAUTHENTICATED", "UNAUTHENTICATED", "UNAVAILABLE"]


def test_the_control_file_wins_while_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's values hold over the flags', a wrong file changes nothing and says so, without it the flags hold."""
    monkeypatch.setattr("ottoscaler.otto_handler.behaviour.LOOK_SECONDS", 0)
    file = tmp_path / "control.json"
    control = Control(Behaviour(retry=5, drop=2), file)
    assert control.now == Behaviour(retry=5, drop=2)
    file.write_text('{"retry": 0, "stall": true}')
    assert control.now == Behaviour(drop=2, stall=True)
    file.write_text('{"retri": 1}')
    assert (control.now, "retri" in control.problem) == (Behaviour(drop=2, stall=True), True)
    file.unlink()
    assert control.now == Behaviour(retry=5, drop=2)


def test_flags_become_behaviour() -> None:
    """Every kind of misbehaviour has a flag."""
    words = "--retry 1 --drop 2 --error 3 --throttle-ms 4 --cut-after 5 --die-after 6 --max-workers 7 --rate-limit 8"
    words += " --buffer-size 9 --max-message-size 10 --no-metadata --stall --away"
    args = build_parser({"handler"}).parse_args(["handler", *words.split()])
    assert behaviour_from(args) == Behaviour(
        retry=1,
        drop=2,
        error=3,
        throttle_ms=4,
        cut_after=5,
        die_after=6,
        max_workers=7,
        rate_limit=8,
        buffer_size=9,
        max_message_size=10,
        include_metadata=False,
        stall=True,
        away=True,
    )


def start(*arguments: str) -> tuple[subprocess.Popen[str], int]:
    """The command, ready, and its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ottoscaler", "handler", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    ready = process.stdout.readline()
    assert ready.startswith("ready at 127.0.0.1:")
    return process, int(ready.rpartition(":")[2])


@pytest.mark.slow_clock
@pytest.mark.process
def test_it_prints_until_a_signal() -> None:
    """The command prints each line, without what would steer a terminal, and a signal is its good end."""
    process, port = start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = OttoHandlerLogServiceStub(channel)
        list(stub.ForwardWorkerLogs(iter([WorkerLogEntry(worker_id="w", message="a\x1b[2J")]), timeout=30))
        stub.NotifyWorkerStatus(WorkerStatusNotification(worker_id="w", status="FAILED", reason="OOMKilled"))
        queue: SimpleQueue[WorkerLogEntry | None] = SimpleQueue()
        open_stream = stub.ForwardWorkerLogs(iter(queue.get, None))  # open until `None` comes
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        queue.put(None)
        open_stream.cancel()
    assert (process.returncode, out, err) == (0, "w | a\\x1b[2J\nw  FAILED: OOMKilled\n", "")


@pytest.mark.slow_clock
@pytest.mark.process
def test_it_dies_with_everything_stored(tmp_path: Path) -> None:
    """`--die-after` kills it at once; each line that it answered, and the one it died with, is in its store."""
    process, port = start("--store", str(tmp_path), "--die-after", "3")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = OttoHandlerLogServiceStub(channel)
        with pytest.raises(grpc.RpcError):
            list(stub.ForwardWorkerLogs(iter([WorkerLogEntry(message=str(number)) for number in range(9)]), timeout=30))
    assert process.wait(timeout=30) == -signal.SIGKILL
    process.communicate()
    stored = [json.loads(line) for line in (tmp_path / "worker_logs.jsonl").read_text().splitlines()]
    assert [record["message"] for record in stored] == ["0", "1", "2"]


def test_a_port_that_is_taken_is_one_sentence() -> None:
    """Where the port is taken the error names it."""
    sink = Told(lambda rpc, record: None)
    with open_otto_handler(sink) as first, pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{first.port}"):
        with open_otto_handler(sink, port=first.port):
            pass


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said of a call that serves nothing."""
    try:
        code = main(["handler", "--port", "0", *arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capfd.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    return err.removeprefix("ottoscaler handler: ").strip()


def test_it_serves_as_asked_or_not_at_all(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What cannot be served is refused at the start, in a sentence with the flag, its value and what was expected."""
    file = tmp_path / "rubbish"
    file.write_text("rubbish")
    key = tmp_path / "key.pem"
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(str(key))
    assert refused(capfd, "--tls-key", str(key)) == f"--tls-key is {str(key)!r}: expected --tls-cert, too"
    expected = ": expected a certificate and its key in PEM, not encrypted ("
    assert refused(capfd, "--tls-cert", str(file)).startswith(f"--tls-cert is {str(file)!r}{expected}")
    both = refused(capfd, "--tls-cert", str(file), "--tls-key", str(key))
    assert both.startswith(f"--tls-cert is {str(file)!r}, --tls-key {str(key)!r}{expected}")
    assert refused(capfd, "--tls-cert", "/nowhere") == "--tls-cert is '/nowhere': No such file or directory"
    for host in ("192.0.2.1", "a..b", "\ud800"):
        said = refused(capfd, "--host", host)
        assert said.startswith(f"--host is {host!r}: expected an address or name of this machine (")
    said = "argument --port: '70000': expected a port from 1 to 65535, or 0 for a free one (see "
    assert refused(capfd, "--port", "70000").startswith(said)


def test_it_listens_on_ipv6() -> None:
    """An address with colons is one, too."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with open_otto_handler(Told(lambda rpc, record: None), host="::1") as handler:
        with grpc.insecure_channel(f"[::1]:{handler.port}") as channel:
            stub: Any = LogStreamingServiceStub(channel)
            assert stub.RegisterWorker(WorkerRegistration(worker_id="w"), timeout=30).session_id


def test_the_store_keeps_what_was_there(tmp_path: Path) -> None:
    """A handler that starts again appends to its files; what cannot be written is not answered ACK."""
    for number in range(2):
        store = Stored(tmp_path)
        store.take("StreamLogs", {"message": str(number)})
        store.close()
    assert (tmp_path / "log_stream.jsonl").read_text() == '{"message":"0"}\n{"message":"1"}\n'

    def full(rpc: str, record: dict[str, Any]) -> None:
        raise OSError(28, os.strerror(28))

    with open_otto_handler(Told(full)) as handler, grpc.insecure_channel(f"127.0.0.1:{handler.port}") as channel:
        stub: Any = LogStreamingServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            list(stub.StreamLogs(iter([LogEntry()]), timeout=30))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
