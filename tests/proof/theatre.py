"""A Trio run that a synchronous caller drives step by step: time passes only while `advance` is called.

The run lives in a thread of its own, parked between the steps, so that its state can be looked at from outside
without a race. Virtual time jumps from one deadline to the next during an advance, and stands still else.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.spine.determinism import schedule_from

T = TypeVar("T")


class Theatre:
    """The stage of one example: `start` puts tasks on it, `advance` lets them live, `close` ends them."""

    def __init__(self) -> None:
        self.crash: BaseException | None = None
        self._clock = MockClock()
        self._nursery: trio.Nursery
        self._token: trio.lowlevel.TrioToken
        self._open = threading.Event()
        self._thread = threading.Thread(target=self._run, name="theatre", daemon=True)
        schedule_from(0)
        self._thread.start()
        self._open.wait()

    def now(self) -> float:
        """Virtual time, in seconds; also asked from outside."""
        return self._clock.current_time()

    def start(self, task: Callable[..., Awaitable[Any]]) -> None:
        """Put a task on the stage; what leaves it ends everything and comes out of the next call."""
        self._call(lambda: self._start(task))

    def do(self, act: Callable[[], T]) -> T:
        """Carry out something synchronous on the stage, and let it take effect while no time passes."""
        return self._call(lambda: self._do(act))

    def ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """Await something; time passes for as long as that takes."""
        return self._call(lambda: self._within_time(call))

    def advance(self, seconds: float) -> None:
        """Let virtual time pass."""
        self._call(lambda: self._within_time(partial(trio.sleep, seconds)))

    def close(self) -> None:
        """End all tasks and the thread."""
        try:
            self._call(self._stop)
        except BaseException as error:  # noqa: BLE001 - it is on its way out already, or said why it is not
            self.crash = self.crash or error
        self._thread.join()

    def _call(self, act: Callable[[], Awaitable[T]]) -> T:
        try:
            return trio.from_thread.run(act, trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled):
            self._thread.join()
            raise self.crash or AssertionError("the run has ended") from None

    def _run(self) -> None:
        try:
            trio.run(self._main, clock=self._clock)
        except BaseException as crash:  # noqa: BLE001 - handed to whoever calls next
            self.crash = crash

    async def _main(self) -> None:
        async with trio.open_nursery() as self._nursery:
            self._token = trio.lowlevel.current_trio_token()
            self._open.set()
            await trio.sleep_forever()

    async def _start(self, task: Callable[..., Awaitable[Any]]) -> None:
        self._nursery.start_soon(task)
        await wait_all_tasks_blocked()

    async def _do(self, act: Callable[[], T]) -> T:
        answer = act()
        await wait_all_tasks_blocked()
        return answer

    async def _within_time(self, call: Callable[[], Awaitable[T]]) -> T:
        self._clock.autojump_threshold = 0
        try:
            return await call()
        finally:
            self._clock.autojump_threshold = math.inf
            await wait_all_tasks_blocked()  # what is due at this very instant is done before anybody looks

    async def _stop(self) -> None:
        self._nursery.cancel_scope.cancel(reason="the example is over")
