"""The client against a handler: both event loops, cuts, refusals, and a handler that is away."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sized
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
import trustme
from trio.testing import MockClock

from ottoscaler.client import Handler, LogStream, Statistics, Worker, open_log_stream
from ottoscaler.client import stream as stream_module
from ottoscaler.otto_handler.behaviour import Behaviour
from ottoscaler.otto_handler.server import OttoHandler, open_otto_handler
from ottoscaler.otto_handler.store import Told

pytestmark = pytest.mark.slow_clock
WORKER = Worker("otto-agent-1", task_id="t", namespace="n", labels={"index": "1"})
BOTH = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Stage:
    """A handler that can be closed and opened again on its port, and what it took."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, dict[str, Any]]] = []
        self._open = ExitStack()
        self._port = 0

    def open(self, behaviour: Behaviour | None = None, **options: Any) -> OttoHandler:
        """Serve; ended by `close`."""
        sink = Told(lambda rpc, record: self.taken.append((rpc, record)))
        handler = self._open.enter_context(open_otto_handler(sink, port=self._port, **options))
        handler.control.base = behaviour or Behaviour()
        self._port = handler.port
        return handler

    def close(self) -> None:
        """Serve no more."""
        self._open.close()

    @property
    def address(self) -> Handler:
        """Where it is."""
        return Handler(f"127.0.0.1:{self._port}")

    @property
    def messages(self) -> list[str]:
        """The lines that were taken, in order."""
        return [record["message"] for rpc, record in self.taken if rpc == "StreamLogs" and record["answer"] == "ACK"]


@pytest.fixture
def stage() -> Any:
    """A stage, closed at the end."""
    made = Stage()
    yield made
    made.close()


def run(backend: str, handler: Handler, body: Callable[[LogStream], Awaitable[None]], **options: Any) -> Statistics:
    """Run a program that logs, on an event loop; how its log stood in the end."""

    async def program() -> Statistics:
        async with open_log_stream(handler, WORKER, **options) as logs:
            await body(logs)
        return logs.statistics()

    return anyio.run(partial(_limited, program), backend=backend)


async def heard(said: Sized, count: int = 1) -> None:
    """Return when something was told, or so much."""
    while len(said) < count:  # noqa: ASYNC110  what is told goes to a list, as it would to a terminal
        await anyio.sleep(0.01)


async def _limited(program: Callable[[], Awaitable[Statistics]]) -> Statistics:
    with anyio.fail_after(45):
        return await program()


@BOTH
def test_lines_arrive_on_either_loop(stage: Stage, backend: str) -> None:
    """A program registers, its lines arrive in order with all that was said of them, and every one is answered."""
    stage.open()

    async def body(logs: LogStream) -> None:
        logs.send_nowait(b"caf\xc3\xa9 \xff", level="info", source="app", metadata={"a": "b"}, timestamp="T")
        logs.send_nowait("two\nlines\n")
        await logs.send("last")
        await logs.flush()
        assert logs.statistics() == Statistics(acknowledged=4, dropped=0, left_out=0, waiting=0)

    run(backend, stage.address, body)
    (rpc, registered), (_, first), *_ = stage.taken
    assert (rpc, registered["worker_id"], registered["task_id"]) == ("RegisterWorker", "otto-agent-1", "t")
    assert registered["metadata"]["labels"] == {"index": "1"}
    assert stage.messages == ["café \\xff", "two", "lines", "last"]
    expected = {"worker_id": "otto-agent-1", "task_id": "t", "level": "info", "source": "app", "timestamp": "T"}
    assert first.items() >= {**expected, "metadata": {"a": "b", "escaped": "true"}}.items()


@BOTH
def test_a_cut_loses_nothing(stage: Stage, backend: str) -> None:
    """Streams that are cut, and a handler that is restarted: every line arrives; only unanswered ones repeat."""
    stage.open(Behaviour(cut_after=100))

    async def body(logs: LogStream) -> None:
        for number in range(400):
            await logs.send(str(number))
        await logs.flush()
        stage.close()
        for number in range(400, 500):
            logs.send_nowait(str(number))
        await anyio.sleep(0.1)
        stage.open()
        await logs.flush()

    done = run(backend, stage.address, body)
    assert done == Statistics(acknowledged=500, dropped=0, left_out=0, waiting=0)
    assert sorted(set(stage.messages), key=int) == [str(number) for number in range(500)]
    assert [rpc for rpc, _ in stage.taken].count("RegisterWorker") >= 5


@BOTH
def test_retry_and_drop_are_honoured(stage: Stage, backend: str) -> None:
    """RETRYed lines come again until they are taken, DROPped ones do not."""
    stage.open(Behaviour(retry=5, drop=7))

    async def body(logs: LogStream) -> None:
        for number in range(50):
            await logs.send(str(number))
        await logs.flush()

    done = run(backend, stage.address, body)
    dropped = [record["message"] for _, record in stage.taken if record["answer"] == "DROP"]
    assert sorted(stage.messages + dropped, key=int) == [str(number) for number in range(50)]
    assert (done.acknowledged, done.dropped) == (50 - len(dropped), len(dropped))


def test_the_end_waits_while_answers_come(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that answers RETRY answers: what is left is sent until it takes it, through our own pauses, too."""
    monkeypatch.setattr(stream_module, "PATIENCE_SECONDS", 1.4)
    handler = stage.open(Behaviour(retry=1))

    async def body(logs: LogStream) -> None:
        logs.send_nowait("x")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(logs.settle, 40)
            await heard(stage.taken, 6)  # registered, and sent at 0, 0.1, 0.3, 0.7 and 1.5 s; the next is at 3.1 s
            assert stage.messages == []
            handler.control.base = Behaviour()
        assert stage.messages == ["x"]

    assert run("trio", stage.address, body).acknowledged == 1


def test_the_handlers_limits_are_kept(stage: Stage) -> None:
    """LoggingConfig: lines a second, bytes of a line, lines held back, and entries without metadata."""
    limits = Behaviour(rate_limit=100, max_message_size=4, buffer_size=20, include_metadata=False)
    stage.open(limits)
    begun = time.monotonic()

    async def body(logs: LogStream) -> None:
        await logs.send("first")
        await logs.flush()
        for number in range(30):
            logs.send_nowait(str(number), metadata={"a": "b"})
        await logs.flush()

    done = run("trio", stage.address, body)
    assert 0.1 < time.monotonic() - begun < 20  # 20 lines at 100 a second, the first few at once
    assert stage.messages[:2] == ["firs", "t"]
    assert stage.messages[-20:] == [str(number) for number in range(10, 30)]
    assert "".join(stage.messages[2:-20]).startswith("10 lines are missing between ")
    assert (done.acknowledged, done.left_out) == (21, 10)
    assert all(record["metadata"] == {} for rpc, record in stage.taken if rpc == "StreamLogs")


def test_a_full_handler_is_asked_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """SERVER_FULL is tried again until there is a place; ALREADY_REGISTERED goes on."""
    monkeypatch.setattr(stream_module, "FULL_PAUSE", 0.05)
    handler = stage.open(Behaviour(max_workers=1))
    other = Worker("another")
    said: list[str] = []

    async def body(logs: LogStream) -> None:
        await logs.send("first")
        await logs.flush()
        async with open_log_stream(stage.address, other, tell=said.append) as late:
            late.send_nowait("late")
            await heard(said)
            handler.control.base = Behaviour()
            await late.flush()
        async with open_log_stream(stage.address, other) as again:
            await again.send("again")

    run("trio", stage.address, body)
    answers = [record["answer"] for rpc, record in stage.taken if rpc == "RegisterWorker"]
    assert answers[:2] == ["SUCCESS", "SERVER_FULL"]
    assert answers[-2:] == ["SUCCESS", "ALREADY_REGISTERED"]
    assert stage.messages == ["first", "late", "again"]
    assert said == [f"otto-handler {stage.address.address} is full: no more workers for now", ""]


def test_lines_that_come_meanwhile_shorten_no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy program asks a full handler no sooner than a silent one: only answers to lines begin the pauses anew."""
    asked: list[float] = []

    async def is_full(logs: LogStream, handler: Handler) -> bool:
        asked.append(trio.current_time())
        logs.send_nowait("written while it is asked")
        return False

    monkeypatch.setattr(LogStream, "_connect", is_full)

    async def program() -> None:
        async with open_log_stream(Handler("127.0.0.1:1"), WORKER, settle_seconds=0):
            await trio.sleep(120)

    trio.run(program, clock=MockClock(autojump_threshold=0))
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert all(0.5 * 2**number <= pause <= 2**number for number, pause in enumerate(pauses[:5]))


@BOTH
def test_a_handler_that_is_away_holds_nobody_up(backend: str) -> None:
    """Without a handler lines are taken at once, the block ends in time, and every line counts as left out."""
    said: list[str] = []
    begun = time.monotonic()

    async def body(logs: LogStream) -> None:
        for number in range(100):
            logs.send_nowait(str(number))
        await heard(said)

    done = run(backend, Handler("127.0.0.1:1"), body, settle_seconds=0.1, tell=said.append)
    assert time.monotonic() - begun < 20
    assert done == Statistics(acknowledged=0, dropped=0, left_out=100, waiting=0)
    assert said[0].startswith("otto-handler 127.0.0.1:1 is away: UNAVAILABLE")


@BOTH
def test_a_stalled_handler_is_left(stage: Stage, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """A handler that takes lines and answers none is asked again on a new connection; the end does not wait for it."""
    monkeypatch.setattr(stream_module, "ANSWER_SECONDS", 0.8)
    handler = stage.open()
    said: list[str] = []

    async def body(logs: LogStream) -> None:
        await logs.send("one")
        await logs.flush()
        await anyio.sleep(1)  # silence without a line under way is no stall
        assert said == []
        handler.control.base = Behaviour(stall=True)
        await logs.send("two")
        await heard(said)
        handler.control.base = Behaviour()
        await logs.flush()

    assert run(backend, stage.address, body, tell=said.append).acknowledged == 2
    assert "STALLED: no answer" in said[0]


def test_a_refused_worker_gives_up_and_the_program_goes_on(stage: Stage) -> None:
    """INVALID_REQUEST is final: it is told once, and neither send nor flush waits for anything."""
    stage.open()
    said: list[str] = []

    async def program() -> Statistics:
        async with open_log_stream(stage.address, Worker(""), tell=said.append) as logs:
            logs.send_nowait("x")
            await logs.flush()
            for _ in range(20_000):
                await logs.send("y")
        return logs.statistics()

    done = anyio.run(program)
    assert (done.left_out, done.waiting) == (20_001, 0)
    assert said == [f"otto-handler {stage.address.address} refuses this worker: worker_id is empty"]


@BOTH
def test_an_error_of_the_program_stays_itself(stage: Stage, backend: str) -> None:
    """What the program raises inside the block comes out as it is, after the lines before it have gone."""
    stage.open()

    async def body(logs: LogStream) -> None:
        logs.send_nowait("before")
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(backend, stage.address, body)
    assert stage.messages == ["before"]


@BOTH
@pytest.mark.parametrize("end", [SystemExit(3), KeyboardInterrupt()], ids=["exit", "ctrl-c"])
def test_a_program_that_exits_keeps_its_exit_code(stage: Stage, backend: str, end: BaseException) -> None:
    """`sys.exit` and Ctrl-C inside the block come out as they are, in no group, after the lines."""
    stage.open()

    async def program() -> None:
        async with open_log_stream(stage.address, WORKER) as logs:
            logs.send_nowait("before")
            raise end

    async def outside() -> str:
        try:
            await program()
        except (SystemExit, KeyboardInterrupt) as error:
            return repr(error)
        return "nothing"

    assert anyio.run(outside, backend=backend) == repr(end)
    assert stage.messages == ["before"]


@BOTH
def test_a_cancelled_program_still_sends_what_it_said(stage: Stage, backend: str) -> None:
    """When the block is cancelled its lines go all the same, and the cancel goes on where it belongs."""
    stage.open()

    async def program() -> bool:
        with anyio.move_on_after(20) as scope:
            async with open_log_stream(stage.address, WORKER) as logs:
                scope.deadline = anyio.current_time() + 0.1
                logs.send_nowait("last words")
                await anyio.sleep(30)
        return scope.cancelled_caught

    assert anyio.run(program, backend=backend)
    assert stage.messages == ["last words"]


def test_tls_and_a_token(stage: Stage, tmp_path: Path) -> None:
    """With an authority of one's own and a token the lines arrive; without them the reason is told."""
    authority = trustme.CA()
    served = authority.issue_cert("localhost", "127.0.0.1")
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    certificate = (served.private_key_pem.bytes(), b"".join(blob.bytes() for blob in served.cert_chain_pems))
    stage.open(certificate=certificate, token="secret")
    address = stage.address.address
    said: list[str] = []

    async def body(logs: LogStream) -> None:
        await logs.send("hello")

    async def refused(logs: LogStream) -> None:
        before = len(said)
        await logs.send("hello")
        await heard(said, before + 1)

    run("trio", Handler(address, ca=str(ca), token="secret"), body)
    assert stage.messages == ["hello"]
    for handler in (Handler(address, ca=str(ca)), Handler(address), Handler(address, ca="/nowhere")):
        run("trio", handler, refused, settle_seconds=0.2, tell=said.append)
    assert "UNAUTHENTICATED: a token is missing" in said[0]
    assert "UNAVAILABLE" in said[1]
    assert said[-1].endswith("NO_CERTIFICATE: /nowhere: No such file or directory")
    assert stage.messages == ["hello"]


def test_it_imports_nothing_of_the_service() -> None:
    """A worker image pays for gRPC and anyio; of ours it gets the client and the messages."""
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, ottoscaler.client; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    ours = {name for name in loaded if name.startswith("ottoscaler.")}
    assert {name for name in ours if not name.startswith(("ottoscaler.client", "ottoscaler.rpc.v1"))} == {
        "ottoscaler.rpc"
    }
    assert not {"trio", "redis", "httpx", "msgspec", "yaml", "rich", "prometheus_client", "starlette"} & set(loaded)
