"""The bridge between gRPC's threads and Trio: the one place where the two meet.

gRPC runs each call in a thread of a pool. `Bridge.ask` and `Bridge.stream` let such a thread run an async function as
a task of the bridge's nursery, and wait for what it gives. A client that goes away (or whose deadline passes, which
gRPC reports in the same way) cancels the task of its call; closing the bridge ends them all with `Draining`.
"""

from __future__ import annotations

import queue
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar

import outcome
import trio

from ottoscaler.errors import OttoscalerError
from ottoscaler.rpc.door import Draining

T = TypeVar("T")
LEFT_SECONDS = 2.0
"""How long what a client's going away sets off may take while the bridge closes."""


class Gone(OttoscalerError):
    """The client of this call went away: there is nobody to answer."""


class Peer(Protocol):
    """The part of a `grpc.ServicerContext` that the bridge needs."""

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have `callback` called, in some thread, when the call is over; False: it is over."""


class _Ended:
    """Stands behind the last item of a stream."""


class _Job(Generic[T]):
    """One task asked for by a thread. All but `take` runs in Trio's thread."""

    def __init__(self, run: Callable[[_Job[T]], Awaitable[None]]) -> None:
        self.run = run
        self.scope = trio.CancelScope()
        self.has_left = False
        self._wanted = trio.Event()
        self._items: queue.SimpleQueue[outcome.Outcome[T | _Ended]] = queue.SimpleQueue()

    def take(self) -> T | _Ended:
        """From the call's thread: wait for the next item. Raises what the task raised."""
        return self._items.get().unwrap()

    def put(self, item: outcome.Outcome[T | _Ended]) -> None:
        self._items.put(item)

    def leave(self) -> None:
        self.has_left = True
        self.scope.cancel(reason="the client went away, or its deadline passed")

    def want(self) -> None:
        self._wanted.set()

    async def wait_wanted(self) -> None:
        """Return when the thread has passed the item before on to the client: this is the back pressure."""
        await self._wanted.wait()
        self._wanted = trio.Event()


class Bridge:
    """Runs async functions for threads; made by `open_bridge`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._token = trio.lowlevel.current_trio_token()
        self._is_open = True

    def ask(self, peer: Peer, function: Callable[[], Awaitable[T]]) -> T:
        """From a thread: run `function` and return its value or raise its error.

        Raises `Gone` where the client went away first, `Draining` where the bridge was closed.
        """

        async def run(job: _Job[T]) -> None:
            job.put(outcome.Value(await function()))

        item = self._begin(peer, _Job(run)).take()
        assert not isinstance(item, _Ended)  # a job puts this behind an item, and nobody takes a second one here
        return item

    def stream(
        self,
        peer: Peer,
        function: Callable[[], AsyncGenerator[T, None]],
        on_left: Callable[[], Awaitable[None]] | None = None,
    ) -> Generator[T, None, None]:
        """From a thread: iterate what `function` yields; the next item is asked for when this one has been sent.

        `on_left` runs where the client went away before the end, and not where the bridge was closed.
        """

        async def run(job: _Job[T]) -> None:
            try:
                async with aclosing(function()) as items:
                    async for item in items:
                        job.put(outcome.Value(item))
                        await job.wait_wanted()
            finally:
                if on_left is not None and job.has_left and self._is_open:
                    with trio.move_on_after(LEFT_SECONDS, shield=True):
                        await on_left()

        job = self._begin(peer, _Job(run))
        try:
            while not isinstance(item := job.take(), _Ended):
                yield item
                self._post(job.want)
        finally:
            self._post(job.leave)

    def close(self, reason: str) -> None:
        """In Trio's thread: end every task, take no more; the threads that wait for them are told `Draining`."""
        self._is_open = False
        self._nursery.cancel_scope.cancel(reason=reason)

    def _begin(self, peer: Peer, job: _Job[T]) -> _Job[T]:
        def leave() -> None:
            self._post(job.leave)

        if not peer.add_callback(leave):
            raise Gone
        if not self._post(lambda: self._start(job)):
            raise Draining("this replica has ended")
        return job

    def _start(self, job: _Job[Any]) -> None:
        if self._is_open:
            self._nursery.start_soon(self._run, job)
        else:
            job.put(outcome.Error(Draining("this replica is about to end")))

    async def _run(self, job: _Job[Any]) -> None:
        ending: outcome.Outcome[Any] = outcome.Error(Draining("this replica is about to end; what was begun goes on"))
        try:
            with job.scope:
                await job.run(job)
                ending = outcome.Value(_Ended())
            if job.has_left and self._is_open:
                ending = outcome.Error(Gone())
        except Exception as error:  # noqa: BLE001  whatever it is belongs to this one call, whose thread raises it
            ending = outcome.Error(error)
        finally:
            job.put(ending)

    def _post(self, function: Callable[[], object]) -> bool:
        """Have `function` called in Trio's thread, in order; False: Trio has ended, and with it all jobs."""
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            return False
        return True


@asynccontextmanager
async def open_bridge() -> AsyncIterator[Bridge]:
    """A bridge, closed at the end of the block."""
    async with trio.open_nursery() as nursery:
        bridge = Bridge(nursery)
        try:
            yield bridge
        finally:
            bridge.close("the door is closed")
