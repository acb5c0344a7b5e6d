"""The log: one line per fact, safe to parse, without secrets, and never in the way of the work."""

import contextlib
import json
import logging
import os
import re
import time
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottoscaler.log import (
    DescriptorHandler,
    JsonFormatter,
    TextFormatter,
    finish_logging,
    log,
    start_logging,
)
from ottoscaler.secret import Secret


class Pipe:
    """A pipe whose write end a log can be given."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)

    def lines(self) -> list[str]:
        """All whole lines that are in the pipe."""
        found = b""
        while True:
            try:
                piece = os.read(self.reader, 1 << 20)
            except BlockingIOError:
                break
            found += piece
        return found.decode().splitlines()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe, and the logging as it was before, afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("ottoscaler")
    before = root.handlers[:], root.level, ours.level
    pipe = Pipe()
    yield pipe
    root.handlers[:], level, our_level = before
    root.setLevel(level)
    ours.setLevel(our_level)
    logging.captureWarnings(capture=False)
    for descriptor in (pipe.reader, pipe.writer):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def failing(text: str) -> Exception:
    """An exception that was really raised, and so has a traceback."""
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_json_has_the_facts_on_one_line(pipe: Pipe) -> None:
    """A machine finds time, level, message and each fact by name."""
    start_logging("info", "json", pipe.writer)
    log.info("worker ended", event_id="1-0", worker="otto-agent-1-1-0", attempt=2, cause="ExitCode")
    (line,) = pipe.lines()
    found = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found == {
        "level": "info",
        "message": "worker ended",
        "event_id": "1-0",
        "worker": "otto-agent-1-1-0",
        "attempt": 2,
        "cause": "ExitCode",
    }


def test_text_has_the_facts_in_columns(pipe: Pipe) -> None:
    """A person reads time, level, message and the facts; values with spaces are quoted."""
    start_logging("info", "text", pipe.writer)
    log.warning("redis lost", address="redis://localhost:6379/0", reason="Connection refused")
    (line,) = pipe.lines()
    assert re.sub(r"^\S+Z", "TIME", line) == (
        'TIME warning redis lost  address=redis://localhost:6379/0  reason="Connection refused"'
    )


def test_a_fact_that_is_none_is_left_out(pipe: Pipe) -> None:
    """What does not apply to a line does not stand on it."""
    start_logging("info", "text", pipe.writer)
    log.info("worker ended", worker="otto-agent-1-1-0", retry=None, exit_code=0)
    assert pipe.lines()[0].endswith("worker ended  worker=otto-agent-1-1-0  exit_code=0")


def test_a_bound_log_carries_its_facts(pipe: Pipe) -> None:
    """Facts bound once stand on every line, and a line's own facts win."""
    start_logging("info", "json", pipe.writer)
    scaling = log.bind(event_id="1-0", stage="create")
    scaling.info("pod created", stage="wait")
    found = json.loads(pipe.lines()[0])
    assert (found["event_id"], found["stage"]) == ("1-0", "wait")


def test_the_level_decides_what_is_written(pipe: Pipe) -> None:
    """Lines below LOG_LEVEL are not written; other libraries are heard from warnings on, whatever the level."""
    start_logging("debug", "json", pipe.writer)
    log.debug("seen")
    logging.getLogger("httpx").info("GET /secret")
    logging.getLogger("httpx").warning("odd %s", "answer")
    start_logging("warning", "json", pipe.writer)
    log.info("not seen")
    found = [json.loads(line) for line in pipe.lines()]
    assert [line["message"] for line in found] == ["seen", "odd answer"]
    assert found[1]["logger"] == "httpx"


def test_secrets_are_never_written(pipe: Pipe) -> None:
    """A Secret among the facts, also inside a list, shows as ***."""
    start_logging("info", "json", pipe.writer)
    log.info("password", value=Secret("hunter2"), several=[Secret("hunter2")])
    start_logging("info", "text", pipe.writer)
    log.info("password", value=Secret("hunter2"), several=[Secret("hunter2")])
    text = "\n".join(pipe.lines())
    assert "hunter2" not in text
    assert text.count("***") == 4


def test_a_traceback_is_written_once(pipe: Pipe) -> None:
    """The first line about an exception has its traceback, later ones only what it says."""
    start_logging("info", "json", pipe.writer)
    error = failing("no\nluck")
    log.error("part crashed", error=error, part="poller")
    log.error("giving up", error=error)
    first, second = (json.loads(line) for line in pipe.lines())
    assert first["error"].startswith("Traceback (most recent call last):")
    assert first["error"].endswith("ValueError: no\nluck")
    assert second["error"] == "ValueError: no\nluck"


def test_a_group_shows_each_of_its_exceptions() -> None:
    """The traceback of an exception group names what each task of a nursery died of."""
    record = logging.LogRecord("ottoscaler", logging.ERROR, "", 0, "crashed", (), None)
    group = ExceptionGroup("two", [failing("one"), failing("two")])
    record.exc_info = (type(group), group, None)
    assert {"ValueError: one", "ValueError: two"} <= {
        line.strip("| ") for line in json.loads(JsonFormatter().format(record))["error"].splitlines()
    }


def test_warnings_become_log_lines(pipe: Pipe) -> None:
    """A warning of Python is a line like any other, not loose text between JSON."""
    start_logging("info", "json", pipe.writer)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
    (line,) = pipe.lines()
    assert "old thing" in json.loads(line)["message"]


class Unshowable:
    """A value whose text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_a_log_call_never_raises(pipe: Pipe) -> None:
    """A value without a text becomes a line that says so; the work goes on."""
    for form in ("json", "text"):
        start_logging("info", form, pipe.writer)
        log.info("odd", value=Unshowable())
    assert pipe.lines() == ["a log line could not be written: 'odd': RuntimeError('no text')"] * 2


def nested(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """The same, and lists and mappings of it."""
    keys = st.text() | st.integers() | st.tuples(st.text())
    return inner | st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5)


anything = nested(nested(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()))


@given(st.text(), st.dictionaries(st.text(), anything))
def test_any_facts_give_one_json_line(message: str, facts: dict[str, object]) -> None:
    """Whatever is logged, the line is strict JSON, in UTF-8, and has no line end in it."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    record = logging.LogRecord("ottoscaler", logging.INFO, "", 0, message, (), None)
    record.facts = facts
    line = JsonFormatter().format(record).encode("utf-8", "backslashreplace").decode()
    assert "\n" not in line
    assert json.loads(line, parse_constant=refuse)["level"] == "info"


@given(st.text(), st.dictionaries(st.from_regex("[a-z_]+", fullmatch=True), st.text()))
def test_text_is_one_line_whatever_the_facts(message: str, facts: dict[str, object]) -> None:
    """A fact cannot forge a second line, nor send control characters to a terminal."""
    record = logging.LogRecord("ottoscaler", logging.INFO, "", 0, message, (), None)
    record.facts = facts
    line = TextFormatter().format(record)
    assert line.isprintable()


def test_colours_are_for_terminals_that_want_them(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets text with colours, none with NO_COLOR; a pipe gets JSON."""
    reader, terminal = os.openpty()
    try:
        for no_color, start in (("", "\x1b[31m"), ("1", "2")):
            monkeypatch.setenv("NO_COLOR", no_color)
            start_logging("info", "auto", terminal)
            log.error("red")
            assert os.read(reader, 1000).decode().startswith(start)
        start_logging("info", "auto", pipe.writer)
        log.error("plain")
        assert json.loads(pipe.lines()[0])["message"] == "plain"
    finally:
        os.close(reader)
        os.close(terminal)


@pytest.mark.slow_clock
def test_a_reader_that_stands_still_costs_lines_and_not_time(pipe: Pipe) -> None:
    """With a full pipe a log call returns at once; when it is read again, a line says how many are missing."""
    handler = DescriptorHandler(pipe.writer, patience=0.05)
    handler.setFormatter(JsonFormatter())
    record = logging.LogRecord("ottoscaler", logging.INFO, "", 0, "x" * 3000, (), None)
    begin = time.monotonic()
    for _ in range(500):
        handler.emit(record)
    assert time.monotonic() - begin < 10  # and not 25
    kept = len([line for line in pipe.lines() if line.endswith('"}')])
    handler.emit(record)
    lost, last = (json.loads(line) for line in pipe.lines() if line)
    assert lost["message"] == "log lines were dropped"
    assert lost["dropped"] == 500 - kept
    assert last["message"] == "x" * 3000


def test_a_line_longer_than_the_pipe_does_not_block(pipe: Pipe) -> None:
    """A huge line is cut off where the pipe is full, and the next one begins on a line of its own."""
    handler = DescriptorHandler(pipe.writer, patience=0.01)
    handler.setFormatter(JsonFormatter())
    handler.emit(logging.LogRecord("ottoscaler", logging.INFO, "", 0, "x" * 1_000_000, (), None))
    (torn,) = pipe.lines()
    assert 0 < len(torn) < 1_000_000
    handler.emit(logging.LogRecord("ottoscaler", logging.INFO, "", 0, "next", (), None))
    assert [json.loads(line)["message"] for line in pipe.lines() if line] == ["log lines were dropped", "next"]


def test_a_closed_stdout_is_silence(pipe: Pipe) -> None:
    """Neither a reader that left nor a closed descriptor raises or waits."""
    start_logging("info", "json", pipe.writer)
    os.close(pipe.reader)
    log.info("nobody reads")
    os.close(pipe.writer)
    log.info("nothing is open")


def test_the_end_tells_what_was_left_out(pipe: Pipe) -> None:
    """A process that ends writes the last of the repeats that it still held back."""
    start_logging("info", "json", pipe.writer)
    for number in range(3):
        log.warning("trouble", reason=f"number {number}")
    finish_logging()
    assert [json.loads(line).get("repeated") for line in pipe.lines()] == [None, 1]
