"""How a command that runs on Trio begins and ends: signals become a cancel with a reason, never a loose process."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import trio

from ottoscaler import signals

HANGUP = (signal.SIGHUP,) if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL else ()  # under `nohup` it is ignored


def _ignore(count: int) -> None:
    """Further signals change nothing."""


async def run_until_signal(
    body: Callable[[trio.Nursery], Awaitable[int]], insist: Callable[[int], None] = _ignore
) -> int:
    """Run `body` until it returns its exit code, or until SIGTERM, SIGINT or SIGHUP cancels it; then 128 + its number.

    `body` gets a nursery that the signal does not cancel: for what reads the output of programs while they end. A
    signal that came before this was ready counts. What `body` opened is closed in its own order in either case; while
    that goes on, each further signal is told to `insist` by its number: 2, 3, ...
    """
    came: list[int] = []
    code = 0
    with trio.open_signal_receiver(*signals.ENDING, *HANGUP) as arriving:
        async with trio.open_nursery() as outer, trio.open_nursery() as waiting:
            with trio.CancelScope() as scope:
                waiting.start_soon(_heed_signals, arriving, scope, came, insist)
                code = await body(outer)
            waiting.cancel_scope.cancel(reason="the command ended")
    return 128 + came[0] if scope.cancelled_caught else code


async def _heed_signals(
    arriving: AsyncIterator[int], scope: trio.CancelScope, came: list[int], insist: Callable[[int], None]
) -> None:
    """Cancel the scope at the first signal, tell each further one."""
    number = signals.first_signal()
    if number is None:
        number = await anext(arriving)
    came.append(number)
    scope.cancel(reason=signal.Signals(number).name)
    async for number in arriving:
        came.append(number)
        insist(len(came))
