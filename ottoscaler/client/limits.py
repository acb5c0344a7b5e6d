"""What the handler takes from one worker (LoggingConfig), inside what we ourselves hold at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

MOST_LINES = 1_000_000
MOST_BYTES = 16 << 20
"""Of all lines that wait, whatever the handler would allow."""
LONGEST_LINE = 1 << 20
"""gRPC servers take messages of 4 MB, if they are not told otherwise."""


class LoggingConfig(Protocol):
    """The message of that name; 0 is no limit."""

    rate_limit: int
    buffer_size: int
    max_message_size: int
    include_metadata: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """`rate` in lines a second, 0 for any; `lines` to hold back; `line_bytes` of UTF-8 in one line."""

    rate: int = 0
    lines: int = MOST_LINES
    line_bytes: int = LONGEST_LINE
    with_metadata: bool = True

    @classmethod
    def of(cls, config: LoggingConfig) -> Limits:
        """The limits that a registration was answered with."""
        return cls(
            rate=max(0, config.rate_limit),
            lines=min(config.buffer_size, MOST_LINES) if config.buffer_size > 0 else MOST_LINES,
            line_bytes=min(config.max_message_size, LONGEST_LINE) if config.max_message_size > 0 else LONGEST_LINE,
            with_metadata=config.include_metadata,
        )

    def cut(self, text: str) -> tuple[str, str]:
        """As much of the text as may be sent at once, in whole characters and at least one; and the rest."""
        data = text[: self.line_bytes].encode()
        if len(data) <= self.line_bytes:
            end = min(len(text), self.line_bytes)
        else:
            end = max(1, len(data[: self.line_bytes].decode(errors="ignore")))
        return text[:end], text[end:]


class Pace:
    """Lines a second, evenly: never more than a twentieth of a second's lines ahead. Times are given by the caller."""

    def __init__(self, rate: int = 0) -> None:
        self.rate = rate
        self._next = 0.0

    def wait(self, now: float) -> float:
        """Seconds until the next line may go; 0: it may go now."""
        return max(0.0, self._next - now) if self.rate else 0.0

    def take(self, now: float) -> None:
        """One line goes."""
        if self.rate:
            self._next = max(self._next, now - 0.05) + 1 / self.rate
