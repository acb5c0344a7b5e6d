"""Repeats in the log: written now and then, counted, and bounded in memory."""

from __future__ import annotations

import logging
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ottoscaler.log import Log, Repeats


class Said(logging.Handler):
    """What is written of a log whose time is in the test's hands; `at` is that time, in seconds."""

    def __init__(self, most: int = 256) -> None:
        super().__init__()
        self.at = 0.0
        self.lines: list[tuple[str, dict[str, object]]] = []
        self.repeats = Repeats(seconds=10, most=most, clock=lambda: self.at)
        self.log = Log("ottoscaler.said")
        logger = logging.getLogger("ottoscaler.said")
        logger.handlers, logger.propagate = [self], False
        logger.setLevel(logging.DEBUG)

    def emit(self, record: logging.LogRecord) -> None:
        """What a handler does with each record."""
        self.take(self.repeats.sift(record))

    def take(self, records: list[logging.LogRecord]) -> None:
        """Note lines as they would be written."""
        self.lines += [(record.getMessage(), getattr(record, "facts", {})) for record in records]

    @staticmethod
    def repeated(facts: dict[str, object]) -> int:
        """How many lines this one stands for beside itself."""
        return int(str(facts.get("repeated", 0)))


def test_a_repeated_warning_is_written_now_and_then_with_a_count() -> None:
    """During an outage of a minute the same warning, ten times a second, is a line every ten seconds that says how
    many were left out; none is uncounted.
    """
    said = Said()
    for tenth in range(600):
        said.at = tenth / 10
        said.log.warning("Redis does not answer", address="redis:6379", reason=f"timed out after {tenth}")
    said.take(said.repeats.rest())
    counts = [said.repeated(facts) for _, facts in said.lines]
    assert counts == [0, 99, 99, 99, 99, 99, 98]
    assert len(counts) + sum(counts) == 600


def test_what_differs_is_no_repeat() -> None:
    """Other events, workers, causes, messages, levels and errors are lines of their own; so is every info."""
    said = Said()
    different: list[dict[str, Any]] = [
        {"event_id": "1-0"},
        {"event_id": "2-0"},
        {"event_id": "1-0", "cause": "Evicted"},
    ]
    for facts in different:
        said.log.warning("trouble", **facts)
    said.log.error("trouble", event_id="1-0")
    said.log.warning("more trouble", event_id="1-0")
    for kind in (ValueError, KeyError):
        said.log.warning("trouble", event_id="1-0", error=kind())
    for _ in range(3):
        said.log.info("it goes on", event_id="1-0")
    assert len(said.lines) == 10


def test_what_befalls_many_workers_alike_is_told_once() -> None:
    """A thousand workers of an event without quota are a line now and one with their number later; another event's, or
    another cause, is a line of its own.
    """
    said = Said()
    for number in range(1000):
        facts: dict[str, Any] = {"event_id": "1-0", "worker": f"w-{number}", "cause": "QuotaExceeded"}
        said.log.warning("worker cannot be created yet", of_many=True, **facts)
    for event_id, cause in (("2-0", "QuotaExceeded"), ("1-0", "ApiUnavailable")):
        said.log.warning("worker cannot be created yet", of_many=True, event_id=event_id, worker="w-1", cause=cause)
    assert len(said.lines) == 3
    said.take(said.repeats.rest())
    assert said.lines[3][1] == {"event_id": "1-0", "worker": "w-999", "cause": "QuotaExceeded", "repeated": 998}


def test_a_change_is_never_left_out() -> None:
    """Lost, back, lost within a second: all are written, so the last line is what holds."""
    said = Said()
    for words in ("lost", "back", "lost"):
        said.log.warning(words, is_change=True)
    assert [words for words, _ in said.lines] == ["lost", "back", "lost"]


def test_what_was_left_out_is_told_though_it_never_comes_again() -> None:
    """The first line of any kind after the time brings the last one left out, which then has its own time again."""
    said = Said()
    for second in range(4):
        said.at = second
        said.log.warning("trouble", reason=f"number {second}")
    said.at = 60
    said.log.info("something else")
    assert said.lines[1:] == [("trouble", {"reason": "number 3", "repeated": 2}), ("something else", {})]
    said.log.warning("trouble", reason="number 4")
    assert len(said.lines) == 3


def test_few_repeats_are_remembered() -> None:
    """However many different warnings come, so many are kept; of the one forgotten first what was left out is told."""
    said = Said(most=5)
    for _ in range(3):
        said.log.warning("trouble", event_id="0-0")
    for number in range(1, 1000):
        said.log.warning("trouble", event_id=f"{number}-0")
    assert len(said.repeats._written) == 5
    assert len(said.lines) == 1001
    assert ("trouble", {"event_id": "0-0", "repeated": 1}) in said.lines


@given(st.lists(st.tuples(st.floats(0, 8), st.sampled_from(["lost", "slow"]), st.sampled_from(["warning", "info"]))))
def test_no_line_is_uncounted(steps: list[tuple[float, str, str]]) -> None:
    """Whatever comes when: lines written and lines left out are all lines, and none is written twice in 10 s."""
    said, written = Said(), dict[str, float]()
    for pause, words, level in steps:
        said.at += pause
        before = len(said.lines)
        getattr(said.log, level)(words, level=level)
        for message, facts in said.lines[before:]:
            if facts["level"] == "warning":
                assert said.at - written.get(message, -10.0) >= 10
                written[message] = said.at
    said.take(said.repeats.rest())
    assert len(said.lines) + sum(said.repeated(facts) for _, facts in said.lines) == len(steps)
