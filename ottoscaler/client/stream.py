"""`open_log_stream`: registers the worker, sends its lines, and comes back for as long as the block runs.

One task owns the connection: it registers (SERVER_FULL and an absent handler are tried again with growing pauses), then
sends and takes answers until the connection is cut, and begins again. Only INVALID_REQUEST ends it: then nothing is
sent any more, and nothing waits for it.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TypedDict, Unpack, cast

import anyio
import anyio.lowlevel

from ottoscaler.client.buffer import Answer, Block, Buffer, Line, Statistics
from ottoscaler.client.exchange import Cut, Exchange
from ottoscaler.client.limits import LONGEST_LINE, Limits
from ottoscaler.client.place import Handler, Worker, WrongSetting, handler_from, worker_from
from ottoscaler.rpc.v1.log_streaming_pb2 import LogEntry, LogResponse, RegistrationResponse, WorkerRegistration

SETTLE_SECONDS = 30.0
PATIENCE_SECONDS = 3.0
"""How long the end waits for what is left, in all and without an answer."""
REGISTER_SECONDS = 10.0
ANSWER_SECONDS = 15.0
"""A handler that leaves lines unanswered for twice so long is left, and asked again on a new connection."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
FULL_PAUSE, LONGEST_FULL_PAUSE = 1.0, 30.0
KINDS = {number: name for name, number in LogResponse.Status.items()}


class Invalid(Exception):
    """The handler says that this worker can never register."""


class About(TypedDict, total=False):
    """What may be said of a line beside its text; `timestamp` is RFC 3339, and now where it is not given."""

    level: str
    source: str
    metadata: Mapping[str, str]
    timestamp: str


class LogStream:
    """The lines of one worker; made by `open_log_stream`, used by tasks of its event loop only."""

    def __init__(self, handler: Handler | None, worker: Worker, tell: Callable[[str], None]) -> None:
        self.problem = "" if handler else "OTTO_HANDLER_HOST is not set"
        """Why lines are not sent right now; empty when they are."""
        self.is_over = handler is None
        """Nothing will be sent any more, whatever becomes of the handler."""
        self._handler = handler
        self._worker = worker
        self._tell = tell
        self._buffer = Buffer()
        self._wake = anyio.Event()
        self._moved = anyio.Event()

    def statistics(self) -> Statistics:
        """What became of the lines so far."""
        return self._buffer.statistics()

    @property
    def is_settled(self) -> bool:
        """Everything was answered, or nothing ever will be."""
        return self.is_over or self._buffer.is_empty

    def send_nowait(self, message: str | bytes, **about: Unpack[About]) -> None:
        """Add a line, or several where it has newlines. Never waits: where there is no room the oldest gives way.

        TypeError for what no message carries, ValueError for what is too long beside the text.
        """
        data = message if isinstance(message, bytes) else message.encode(errors="replace")
        lines = data if data.endswith(b"\n") else data + b"\n"
        stamp, level, source = (_text(name, about.get(name)) for name in ("timestamp", "level", "source"))
        block = Block(lines, stamp or stamp_now(), level, source, _copied(about.get("metadata")))
        if block.about_bytes > LONGEST_LINE:
            said = f"level, source and metadata are {block.about_bytes} bytes"
            raise ValueError(f"{said}, expected {LONGEST_LINE} at most")
        self.add_block(block)

    def add_block(self, block: Block) -> None:
        """As `send_nowait`, for lines that somebody else has put together."""
        self._buffer.add(block)
        if self.is_over:
            self._buffer.give_up()
        else:
            self._wake.set()

    async def send(self, message: str | bytes, **about: Unpack[About]) -> None:
        """As `send_nowait`, after waiting for room: for programs that would rather wait than lose a line."""
        await anyio.lowlevel.checkpoint()
        while not (self._buffer.has_room or self.is_over):
            await self._moved.wait()
        self.send_nowait(message, **about)

    async def flush(self) -> None:
        """Return when everything was answered, or nothing ever will be."""
        while not self.is_settled:
            await self._moved.wait()

    async def settle(self, seconds: float) -> None:
        """As `flush`, for `seconds` at most, and only while answers come (`PATIENCE_SECONDS` without any end it)."""
        with anyio.move_on_after(seconds):
            while not self.is_settled:
                before = self._buffer.answers
                with anyio.move_on_after(PATIENCE_SECONDS + self._own_pause()):
                    while self._buffer.answers == before and not self.is_settled:
                        await self._moved.wait()
                if self._buffer.answers == before:
                    return

    def _own_pause(self) -> float:
        """Seconds for which no answer can come, because a line that was answered RETRY is not sent again before."""
        if self.problem or self._buffer.is_under_way:
            return 0.0
        return self._buffer.wait(anyio.current_time())

    def _note_moved(self) -> None:
        """Answers have come, or the connection has changed."""
        self._moved.set()
        self._moved = anyio.Event()

    # -- the task that owns the connection

    async def run(self) -> None:
        """Send for ever; returns where nothing can be sent any more."""
        if self._handler is None:
            return
        pauses, full = _pauses(FIRST_PAUSE, LONGEST_PAUSE), _pauses(FULL_PAUSE, LONGEST_FULL_PAUSE)
        while not self.is_over:
            answers = self._buffer.answers
            try:
                is_full = not await self._connect(self._handler)
            except Cut as cut:
                is_full = False
                if cut.is_for_size:
                    self._buffer.shrink()
                self._say(f"otto-handler {self._handler.address} is away: {cut}")
            except Invalid as invalid:
                self._end(f"otto-handler {self._handler.address} refuses this worker: {invalid}")
            except Exception as error:  # noqa: BLE001  a fault of ours must not end the program whose lines these are
                self._end(f"a fault of Ottoscaler's own: {error!r}")
            finally:
                self._buffer.put_back()
                self._note_moved()
            if self._buffer.answers != answers:
                pauses, full = _pauses(FIRST_PAUSE, LONGEST_PAUSE), _pauses(FULL_PAUSE, LONGEST_FULL_PAUSE)
            if not self.is_over:
                await anyio.sleep(next(full if is_full else pauses))

    def _end(self, problem: str) -> None:
        self._say(problem)
        self.give_up()

    def give_up(self) -> None:
        """What waits is left out; nothing is sent any more."""
        self.is_over = True
        self._buffer.give_up()

    async def _connect(self, handler: Handler) -> bool:
        """One connection, to its end, which is an error. False where the handler has no place for us now."""
        exchange = Exchange(handler)
        try:
            if not await self._register(exchange, handler):
                return False
            await self._exchange(exchange)
        finally:
            exchange.close()
        return True

    async def _register(self, exchange: Exchange, handler: Handler) -> bool:
        """Register; False where there is no place."""
        worker = self._worker
        registration = WorkerRegistration(
            worker_id=worker.worker_id, task_id=worker.task_id, server_endpoint=handler.address
        )
        registration.metadata.pod_name = worker.worker_id
        registration.metadata.namespace = worker.namespace
        registration.metadata.node_name = worker.node_name
        registration.metadata.labels.update(worker.labels)
        answer = await exchange.register(registration, REGISTER_SECONDS)
        if answer.status == RegistrationResponse.INVALID_REQUEST:
            raise Invalid(answer.message or "INVALID_REQUEST")
        if answer.status == RegistrationResponse.SERVER_FULL:
            self._say(f"otto-handler {handler.address} is full" + (f": {answer.message}" if answer.message else ""))
            return False
        if answer.HasField("config"):
            self._buffer.set_limits(Limits.of(answer.config))
        return True

    async def _exchange(self, exchange: Exchange) -> None:
        """Send and take answers until the stream ends, with `Cut`."""
        self._say("")
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(exchange.open_stream())
                tasks.start_soon(self._send, exchange)
                await self._take_answers(exchange)
        except BaseExceptionGroup as group:
            cuts, others = group.split(Cut)
            if others is not None:  # we are cancelled, or there is a fault; that it was cut as well says nothing new
                raise others from None
            assert cuts is not None  # a group is not empty
            raise _first(cuts) from None

    async def _send(self, exchange: Exchange) -> None:
        """Send what may be sent, whenever something may."""
        while True:
            now = anyio.current_time()
            lines = []
            while (line := self._buffer.next(now)) is not None:
                lines.append(self._entry(line))
            if lines:
                exchange.send(lines)
            self._wake = anyio.Event()
            with anyio.move_on_after(self._buffer.wait(now)):
                await self._wake.wait()

    async def _take_answers(self, exchange: Exchange) -> None:
        """Take answers for ever. Raises Cut at the end of the stream, and where answers stay away."""
        is_late = False
        while True:
            answers = await exchange.take_answers(ANSWER_SECONDS)
            if is_late and not answers and self._buffer.is_under_way:
                raise Cut("STALLED", f"no answer in {ANSWER_SECONDS:.0f} s")
            is_late = not answers and self._buffer.is_under_way
            now = anyio.current_time()
            for answer in answers:
                if not self._buffer.is_under_way:
                    if self.is_over:
                        return
                    raise Cut("CONFUSED", "more answers than lines")
                self._buffer.take_answer(cast(Answer, KINDS.get(answer.status, "RETRY")), now)
            self._wake.set()
            self._note_moved()

    def _entry(self, line: Line) -> LogEntry:
        return LogEntry(
            worker_id=self._worker.worker_id,
            task_id=self._worker.task_id,
            timestamp=line.timestamp,
            level=line.level,
            source=line.source,
            message=line.text,
            metadata=line.metadata if self._buffer.limits.with_metadata else None,
        )

    def _say(self, problem: str) -> None:
        """Tell what stands in the way, once."""
        if problem != self.problem:
            self.problem = problem
            self._tell(problem)


@asynccontextmanager
async def open_log_stream(
    handler: Handler | None = None,
    worker: Worker | None = None,
    *,
    settle_seconds: float = SETTLE_SECONDS,
    tell: Callable[[str], None] = lambda problem: None,
    environ: Mapping[str, str] = os.environ,
) -> AsyncIterator[LogStream]:
    """Send lines for as long as the block runs, and what is left at its end, for `settle_seconds` at most.

    Without `handler` and `worker` they are those of the environment; where that names no handler, or is wrong, every
    line is left out. `tell` hears why lines are not sent right now, and an empty text when they are again.
    """
    stream = _stream(handler, worker, tell, environ)
    raised: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream.run)
        try:
            yield stream
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001  raised again below, outside of
            raised = error  # the group, as what it is: an exit keeps its code
        finally:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + settle_seconds):
                await stream.settle(settle_seconds)
            stream.give_up()
            tasks.cancel_scope.cancel(reason="the block has ended")
    if raised is not None:
        raise raised


def _stream(
    handler: Handler | None, worker: Worker | None, tell: Callable[[str], None], environ: Mapping[str, str]
) -> LogStream:
    """A stream to the handler; where the environment is wrong, one that is over, because the program must run."""
    try:
        return LogStream(handler or handler_from(environ), worker or worker_from(environ), tell)
    except WrongSetting as error:
        stream = LogStream(None, Worker(""), tell)
        stream._say(str(error))
        return stream


def _text(name: str, said: object) -> str:
    """What a program says of a line, as a message carries it. Raises TypeError."""
    if said is None:
        return ""
    if not isinstance(said, str):
        raise TypeError(f"{name} is {said!r}, expected text")
    return said if said.isascii() else said.encode(errors="replace").decode()


def _copied(metadata: object) -> dict[str, str] | None:
    """The same as it is now: the program may change its own before the line is sent. Raises TypeError."""
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata is {metadata!r}, expected a mapping of names to texts")
    texts = ((name, _text(f"metadata[{name!r}]", said)) for name, said in metadata.items())
    return {_text("a name in metadata", name): said for name, said in texts}


def stamp_now() -> str:
    """The time, as RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _pauses(first: float, longest: float) -> Iterator[float]:
    """Growing pauses in seconds, each with up to half of it taken off by chance."""
    pause = first
    while True:
        yield pause * (1 - 0.5 * random.random())
        pause = min(longest, pause * 2)


def _first(group: BaseExceptionGroup[Cut]) -> Cut:
    """The first Cut of a group, however deep."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
