"""The rpcs: what each call must pass before it has a task, what its task does, and what the client is told at its end.

A call has its pace, its token and, where it may last, its place checked as soon as its headers are there, in sync code;
what is refused costs no task. What then waits for the client has a limit of time, so that nobody keeps a place by
saying nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple

import trio

from ottoscaler.metrics import RPC_SECONDS
from ottoscaler.rpc import health as health_service
from ottoscaler.rpc import messages, reflection
from ottoscaler.rpc.access import Access
from ottoscaler.rpc.answers import OK, Answer, NotAllowed, NotKnown, NotOffered, NotRead, answer_to
from ottoscaler.rpc.door import Door, Draining, InvalidCall, TooMany
from ottoscaler.rpc.health import Health
from ottoscaler.rpc.http2.call import Call
from ottoscaler.rpc.http2.codes import Code
from ottoscaler.rpc.http2.heads import ENCODINGS
from ottoscaler.rpc.http2.peers import Refusals
from ottoscaler.rpc.lanes import Lane, Place
from ottoscaler.rpc.tokens import Role
from ottoscaler.rpc.trace_headers import with_trace

SERVICE = "ottoscaler.v1.OttoscalerService"
MESSAGE_SECONDS = 10.0
"""How long an open call may be without its message."""
ANSWER_SECONDS = 60.0
"""How long a client may take to let its one answer in."""
PROBE_SECONDS = 1.0
"""Both for health checks, which are open to everybody: who holds them up must begin anew all the time."""
REFLECTION_SECONDS = 60.0
MOST_SHOWN = 100
"""Characters of a name that is not ours."""
Work = Callable[[Call], Awaitable[None]]


class Lanes(NamedTuple):
    """One for each sort of call, and for what only machines that watch the door ask."""

    waiting: Lane
    short: Lane
    health: Lane
    watching: Lane


class Method(NamedTuple):
    """How one rpc is served; without a role it is open to everybody."""

    rpc: str
    lane: Lane
    role: Role | None
    work: Work


class Servicer:
    """Everything that is served; `begin` is what connections call."""

    def __init__(
        self, door: Door, access: Access, health: Health, lanes: Lanes, refusals: Refusals, largest: int
    ) -> None:
        self._door = door
        self._access = access
        self._health = health
        self._refusals = refusals
        self._largest = largest
        self._begun = 0.0  # when the last call came, of those that change over to another replica
        self._watching = lanes.watching
        self._watchers: set[Call] = set()
        self._methods = self._build(lanes)

    def _build(self, lanes: Lanes) -> dict[str, Method]:
        door, scale, state = self._door, messages.write_scale_answer, messages.write_status_answer
        up = self._unary(messages.read_scale_up, door.scale_up, scale)
        down = self._unary(messages.read_scale_down, door.scale_down, scale)
        status = self._unary(messages.read_status_question, door.worker_status, state)
        ours = [
            Method("ScaleUp", lanes.waiting, "scale", up),
            Method("ScaleDown", lanes.waiting, "scale", down),
            Method("GetWorkerStatus", lanes.short, "read", status),
            Method("ExecutePipeline", lanes.waiting, "scale", self._execute_pipeline),
        ]
        checks = [
            Method("Check", lanes.health, None, self._check),
            Method("Watch", lanes.watching, None, self._watch),
        ]
        reflecting = [Method("ServerReflectionInfo", lanes.watching, "read", self._reflect)]
        served = {SERVICE: ours, health_service.SERVICE: checks, **dict.fromkeys(reflection.SERVICES, reflecting)}
        self._services = tuple(served)
        return {f"/{service}/{method.rpc}": method for service, methods in served.items() for method in methods}

    async def wait_quiet(self, seconds: float) -> None:
        """Return when no call came for so long; health checks, which nobody ends, do not count."""
        while (left := self._begun + seconds - trio.current_time()) > 0:  # noqa: ASYNC110  calls only set a time
            await trio.sleep(left)

    def end_watching(self, reason: str) -> None:
        """End what goes on for as long as it is let, so that nothing is kept open for it."""
        for call in self._watchers:
            call.scope.cancel(reason=reason)

    # -- every call

    def begin(self, call: Call) -> Callable[[], Awaitable[None]] | None:
        """Let a call in: what its task has to do; None where it was refused, and has been told."""
        started = trio.current_time()
        method = self._methods.get(call.head.get(":path"))
        rpc = method.rpc if method else "unknown"
        if status := _http_problem(call):
            self._refusals.note_call(call.peer, rpc, f"HTTP {status}", "it is no POST of application/grpc")
            call.refuse(status)
            return None
        try:
            client = self._admit(call, method, started)
        except Exception as error:  # noqa: BLE001  whatever it is, the call gets an answer
            about = str(error) if isinstance(error, NotKnown | NotAllowed | TooMany) else ""
            self._end(call, rpc, answer_to(error), started, about)
            return None
        assert method is not None  # else it was refused
        return partial(self._run, call, method, client, started)

    def _admit(self, call: Call, method: Method | None, now: float) -> str:
        """Let it in, and give it a place: who it is."""
        client, path = call.peer.host, call.head.get(":path")
        role = method.role if method else "read"
        if role is not None:
            self._begun = now
            client = self._access.admit(client, call.head, role) or client
        if method is None:
            raise NotOffered(f"{path[:MOST_SHOWN]!r} is not served here")
        encoding = call.head.get("grpc-encoding")
        if encoding and encoding not in ENCODINGS.split(","):
            raise NotOffered(f"messages encoded as {encoding[:MOST_SHOWN]!r} are not read here, but {ENCODINGS}")
        call.scope.deadline = now + call.head.timeout
        call.place = Place(method.lane, client)
        return client

    async def _run(self, call: Call, method: Method, client: str, started: float) -> None:
        answer = _draining()  # where it is cancelled from outside
        if method.lane is self._watching:
            self._watchers.add(call)
        try:
            with call.scope:
                answer = await _answer(call, method)
            if call.scope.cancelled_caught:
                answer = _cut_short(call)
        finally:
            self._watchers.discard(call)
            call.place.leave()
            self._end(call, method.rpc, answer, started, client)

    def _end(self, call: Call, rpc: str, answer: Answer, started: float, about: str) -> None:
        if answer.code not in (Code.OK, Code.DEADLINE_EXCEEDED) and not call.has_left:
            self._refusals.note_call(call.peer, rpc, answer.code.name, answer.message, about)
        call.finish(answer)
        RPC_SECONDS.labels(rpc, answer.code.name).observe(trio.current_time() - started)

    # -- the rpcs

    def _unary(
        self, read: Callable[[bytes], Any], ask: Callable[[Any], Awaitable[Any]], write: Callable[[Any], bytes]
    ) -> Work:
        async def work(call: Call) -> None:
            asked = with_trace(read(await self._message(call)), call.head)
            await _give(call, write(await ask(asked)))

        return work

    async def _execute_pipeline(self, call: Call) -> None:
        asked = with_trace(messages.read_pipeline(await self._message(call)), call.head)
        await _give_all(call, _encoded(self._door.execute_pipeline(asked, lambda: call.is_abandoned)))

    async def _check(self, call: Call) -> None:
        question = await self._message(call, PROBE_SECONDS)
        await _give(call, self._health.check(question), PROBE_SECONDS)

    async def _watch(self, call: Call) -> None:
        await _give_all(call, self._health.watch(await self._message(call)))

    async def _reflect(self, call: Call) -> None:
        with trio.move_on_after(REFLECTION_SECONDS) as patience:
            while (question := await call.message(self._largest)) is not None:
                await call.send(reflection.reflect(question, self._services))
        if patience.cancelled_caught:
            raise NotRead(f"reflection takes longer than {REFLECTION_SECONDS:g} s")

    async def _message(self, call: Call, seconds: float | None = None) -> bytes:
        """The one message of a call."""
        seconds = seconds or MESSAGE_SECONDS
        with trio.move_on_after(seconds):
            message = await call.message(self._largest)
            if message is None:
                raise InvalidCall("the message", "missing", "one message")
            return message
        raise NotRead(f"the call had no message within {seconds:g} s")


async def _answer(call: Call, method: Method) -> Answer:
    try:
        await method.work(call)
    except Exception as error:  # noqa: BLE001  whatever it is, the call gets an answer
        return answer_to(error)
    return OK


async def _give(call: Call, message: bytes, seconds: float = ANSWER_SECONDS) -> None:
    """Send the one answer of a call."""
    with trio.move_on_after(seconds):
        await call.send(message)
        return
    raise NotRead(f"its answer was not taken within {seconds:g} s")


async def _give_all(call: Call, messages: AsyncGenerator[bytes, None]) -> None:
    """Send the answers of a stream; the next is asked for when the client has let this one in."""
    async with aclosing(messages):
        async for message in messages:
            await call.send(message)


async def _encoded(news: AsyncGenerator[Any, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(news):
        async for each in news:
            yield messages.write_pipeline_news(each)


def _cut_short(call: Call) -> Answer:
    if call.has_left:
        return Answer(Code.CANCELLED, "the client went away")
    return Answer(Code.DEADLINE_EXCEEDED, "Deadline Exceeded") if call.is_abandoned else _draining()


def _draining() -> Answer:
    return answer_to(Draining("this replica is about to end; what was begun goes on"))


def _http_problem(call: Call) -> int:
    """The HTTP status for what is no call; 0: it is one."""
    if call.head.get(":method") != "POST":
        return 405
    return 0 if call.head.is_grpc else 415
