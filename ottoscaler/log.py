"""The log: one line per fact, as text for people or as JSON for machines, on stdout.

`log.info("worker ended", event_id=..., cause=...)`: a constant message and facts by name (event_id, task_id, worker,
attempt, stage, cause, ...); a fact that is None is left out. It rides on the standard `logging`: the facts are the
record's `facts`, so that handlers and tests see them. A log call never raises and never waits long, whatever becomes of
stdout. A warning that comes again and again is written now and then, with a count of what was left out.
"""

import json
import logging
import os
import select
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_COLOURS = {logging.DEBUG: "\x1b[2m", logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m"}
REPEAT_SECONDS = 10.0
"""For so long a warning that was written is not written again."""
MOST_REPEATS = 256
"""So many different ones are remembered."""
VARYING = frozenset({"reason", "seconds", "crashes", "pods", "events", "seen", "now", "told"})
"""Facts that may differ between two lines which say the same; by all others they are told apart."""
WORKER = frozenset({"worker", "attempt", "trace_id"})
_CHUNK = select.PIPE_BUF  # bytes that a pipe which polls as writable takes without blocking


class Log:
    """Writes facts under a logger's name; `bind` gives one whose lines all carry some facts."""

    def __init__(self, name: str, facts: dict[str, object] | None = None) -> None:
        self._logger = logging.getLogger(name)
        self._facts = facts or {}

    def bind(self, **facts: object) -> "Log":
        """The same log with `facts` on every line."""
        return Log(self._logger.name, {**self._facts, **facts})

    def debug(self, message: str, /, **facts: object) -> None:
        """Say what only someone who searches for a fault wants to know."""
        self._write(logging.DEBUG, message, facts, None)

    def info(self, message: str, /, **facts: object) -> None:
        """Say what happened."""
        self._write(logging.INFO, message, facts, None)

    def warning(
        self,
        message: str,
        /,
        *,
        error: BaseException | None = None,
        is_change: bool = False,
        of_many: bool = False,
        **facts: object,
    ) -> None:
        """Say what went wrong and is coped with; an `error` adds its traceback. What tells of a change (lost, back) is
        never taken for a repeat: the last of them is what holds. What befalls many workers of an event alike (no
        quota, no node) is a repeat whichever of them it is of.
        """
        self._write(logging.WARNING, message, facts, error, is_change=is_change, of_many=of_many)

    def error(
        self, message: str, /, *, error: BaseException | None = None, is_change: bool = False, **facts: object
    ) -> None:
        """Say what someone must look at; the rest as `warning`."""
        self._write(logging.ERROR, message, facts, error, is_change=is_change)

    def _write(
        self, level: int, message: str, facts: dict[str, object], error: BaseException | None, **of_repeats: bool
    ) -> None:
        logger = self._logger
        if not logger.isEnabledFor(level):
            return
        exc_info = None if error is None else (type(error), error, error.__traceback__)
        # made by hand: Logger.log would walk the stack for the caller's line, which nobody prints
        record = logger.makeRecord(logger.name, level, "", 0, message, (), exc_info)
        known = {**self._facts, **facts}
        record.facts = {name: value for name, value in known.items() if value is not None}
        vars(record).update(of_repeats)  # what `Repeats` looks at
        logger.handle(record)


log = Log("ottoscaler")


def start_logging(level: str, form: str, descriptor: int = 1) -> None:
    """Write what `level` (debug, info, warning, error) allows as `form` (text, json, auto) to a file descriptor.

    Other libraries are heard from warnings on: their debug lines may hold secrets. Exceptions that nobody caught are
    logged too. Calling it again replaces what was set before.
    """
    is_terminal = os.isatty(descriptor)
    as_text = form == "text" or (form == "auto" and is_terminal)
    handler = DescriptorHandler(descriptor)
    handler.setFormatter(TextFormatter(is_terminal and not os.environ.get("NO_COLOR")) if as_text else JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("ottoscaler").setLevel(LEVELS[level])
    logging.captureWarnings(capture=True)
    sys.excepthook = lambda kind, error, trace: log.error("crashed", error=error)


def finish_logging() -> None:
    """Write what is still held back, before the process ends."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def _stamp(record: logging.LogRecord) -> str:
    """The record's time as RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _facts(record: logging.LogRecord) -> dict[str, object]:
    """The record's facts; a line of another library has its logger's name instead."""
    return getattr(record, "facts", None) or ({} if record.name == "ottoscaler" else {"logger": record.name})


def _trace(record: logging.LogRecord) -> str:
    """The traceback, the first time that its exception is logged; after that only what it says."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return ""
    if getattr(error, "_is_logged", False):
        return f"{type(error).__name__}: {error}"
    with suppress(AttributeError):  # the odd exception class takes no attribute
        error._is_logged = True  # type: ignore[attr-defined]  # a mark of our own on the exception object
    return "".join(traceback.format_exception(error)).rstrip()


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, message, the facts, and error with the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its end."""
        line: dict[str, Any] = {
            "time": _stamp(record),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if trace := _trace(record):
            line["error"] = trace
        for name, value in _facts(record).items():
            line[f"{name}_" if name in line else name] = value
        try:
            return json.dumps(line, default=str, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError):  # odd keys, circles, NaN
            return json.dumps({name: str(value) for name, value in line.items()}, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`time level message name=value ...` in columns, the traceback below; with colours where wanted."""

    def __init__(self, colours: bool = False) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its end."""
        facts = "".join(f"  {name}={_shown(value)}" for name, value in _facts(record).items())
        line = f"{_stamp(record)} {record.levelname.lower():7} {_printable(record.getMessage())}{facts}"
        if self._colours and (colour := _COLOURS.get(record.levelno)):
            line = f"{colour}{line}\x1b[0m"
        return "\n".join(filter(None, (line, _trace(record))))


def _shown(value: object) -> str:
    """A fact's value on a text line: in quotes where it is empty or has spaces, quotes or line ends."""
    plain = str(value)
    is_plain = plain.isprintable() and plain and not set(plain) & set(" \"'=")
    return plain if is_plain else _printable(json.dumps(plain, ensure_ascii=False))


def _printable(text: str) -> str:
    """`text` with line ends and control characters as escapes: they could forge a line or steer a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class _Repeat:
    """A warning that was written, and the last of the same that was left out since."""

    __slots__ = ("count", "last", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.count = 0
        self.last: logging.LogRecord | None = None


class Repeats:
    """Keeps warnings and errors from coming again and again: the same one is written once in `seconds`.

    The same is: from one logger, at one level, of one message, with equal facts (but those that are VARYING, and of
    many which WORKER it is) and one kind of error. The next one that is written says how many were left out
    (`repeated`); where none comes, the last of them is written with the first line of whatever kind after that time.
    Beyond `most` different ones the oldest is forgotten in the same way.
    """

    def __init__(
        self, seconds: float = REPEAT_SECONDS, most: int = MOST_REPEATS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._written: OrderedDict[Hashable, _Repeat] = OrderedDict()  # the one written longest ago first

    def sift(self, record: logging.LogRecord) -> list[logging.LogRecord]:
        """The lines to write now: left-out ones whose time is over, and this one unless it is left out."""
        now = self._clock()
        key = _same(record) if record.levelno >= logging.WARNING and not getattr(record, "is_change", False) else None
        known = self._written.get(key) if key is not None else None
        if known is not None and now < known.until:
            known.count += 1
            known.last = record
            return self._overdue(now)
        if known is not None:
            del self._written[key]
            _count(record, known.count)
        lines = [*self._overdue(now), record]
        if key is not None:
            self._written[key] = _Repeat(now + self._seconds)
        while len(self._written) > self._most:
            lines[-1:-1] = _last(self._written.popitem(last=False)[1])
        return lines

    def rest(self) -> list[logging.LogRecord]:
        """All lines that were left out and nobody was told of; they count as told."""
        lines = [line for repeat in self._written.values() for line in _last(repeat)]
        self._written.clear()
        return lines

    def _overdue(self, now: float) -> list[logging.LogRecord]:
        lines: list[logging.LogRecord] = []
        while self._written and (oldest := next(iter(self._written.values()))).until <= now:
            key, _ = self._written.popitem(last=False)
            if told := _last(oldest):
                lines += told
                self._written[key] = _Repeat(now + self._seconds)
        return lines


def _same(record: logging.LogRecord) -> Hashable:
    """What two records share that say the same."""
    left_out = VARYING | WORKER if getattr(record, "of_many", False) else VARYING
    facts = tuple((name, str(value)) for name, value in _facts(record).items() if name not in left_out)
    return record.name, record.levelno, record.msg, facts, record.exc_info[0] if record.exc_info else None


def _last(repeat: _Repeat) -> list[logging.LogRecord]:
    """The last that was left out, which stands for all of them; nothing where none was."""
    if repeat.last is None:
        return []
    _count(repeat.last, repeat.count - 1)
    return [repeat.last]


def _count(record: logging.LogRecord, left_out: int) -> None:
    if left_out:
        record.facts = {**_facts(record), "repeated": left_out}


class DescriptorHandler(logging.Handler):
    """Writes to a file descriptor, and drops lines rather than wait for a reader that stands still.

    A reader that is merely slow gets `patience` seconds once; while it stands still every line is dropped at once.
    When it reads again, a line says how many are missing. A closed descriptor is silence. Repeats are left out.
    """

    def __init__(self, descriptor: int, patience: float = 0.1, repeats: Repeats | None = None) -> None:
        super().__init__()
        self._repeats = repeats or Repeats()
        self._descriptor = descriptor
        self._patience = patience
        self._dropped = 0
        self._torn = ""  # the line end that a half-written line still needs
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, unless it is a repeat; whatever goes wrong, the caller's work goes on."""
        try:
            lines = self._repeats.sift(record)
        except Exception:  # noqa: BLE001  a value whose str() fails: said when it is written
            lines = [record]
        for line in lines:
            self._write(line)

    def flush(self) -> None:
        """Write what was left out and not told yet."""
        self.acquire()
        try:
            for line in self._repeats.rest():
                self._write(line)
        finally:
            self.release()

    def _write(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001  a value whose str() fails must not stop the work that it describes
            line = f"a log line could not be written: {record.msg!r}: {error!r}"
        if not self._can_write():
            self._dropped += 1
            return
        if self._dropped:
            line = f"{self._torn}{self._lost_line(record)}\n{line}"
            self._dropped, self._torn = 0, ""
        self._send(f"{line}\n".encode("utf-8", "backslashreplace"))

    def _lost_line(self, like: logging.LogRecord) -> str:
        lost = logging.LogRecord("ottoscaler", logging.WARNING, "", 0, "log lines were dropped", (), None)
        lost.created = like.created
        lost.facts = {"dropped": self._dropped, "cause": "the reader of the log stood still"}
        return self.format(lost)

    def _can_write(self) -> bool:
        return bool(self._poll.poll(0 if self._dropped else self._patience * 1000))

    def _send(self, data: bytes) -> None:
        """Write piece by piece, each only when it fits; a line that does not fit in time is cut off and counted."""
        try:
            while data and self._can_write():
                written = os.write(self._descriptor, data[:_CHUNK])
                data = data[written:]
            if data:
                self._dropped, self._torn = self._dropped + 1, "\n"
        except OSError:  # closed, or its reader is gone: there is nobody to tell
            return
