"""Signals from the first instant: what arrives before the command is ready is remembered, never lost.

As process 1 of a container a SIGTERM without a handler is ignored for ever, elsewhere it kills at once; importing the
rest takes half a second. So this module imports nothing but `signal`, and the entry calls `note_signals` before any
other import. A command that ends in its own way opens its signal receiver and then looks at `first_signal`; all others
call `restore_signals`.
"""

import signal
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM)  # in this order: whoever sees that SIGTERM has its handler may send either
_noted: list[int] = []
_before: dict[int, object] = {}


def note_signals() -> None:
    """Remember SIGTERM and SIGINT from now on; unblock them, for a starter may block them to close the last gap."""
    for number in ENDING:
        _before[number] = signal.signal(number, _note)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def _note(number: int, frame: FrameType | None) -> None:
    _noted.append(number)


def first_signal() -> int | None:
    """The first SIGTERM or SIGINT that was remembered, None while there is none."""
    return _noted[0] if _noted else None


def restore_signals() -> None:
    """Back to normal: SIGINT raises KeyboardInterrupt, SIGTERM ends at once with 143; one remembered acts now."""
    if _before.get(signal.SIGINT) is not signal.SIG_IGN:  # `nohup` and background jobs of scripts ignore it: stay so
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _end_now)
    if (number := first_signal()) is not None:
        _noted.clear()
        signal.raise_signal(number)


def _end_now(number: int, frame: FrameType | None) -> None:
    import os  # here, so that nothing but `signal` is imported first

    os._exit(128 + number)
