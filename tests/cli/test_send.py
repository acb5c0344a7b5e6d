"""`send`: an event goes out once, wrong ones never, and --wait tells how it goes and how it ended."""

import argparse

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.cli import build_parser
from ottoscaler.cli.send import BadEvent, add_event, event_pairs, wait_result
from ottoscaler.errors import Unavailable
from ottoscaler.outcomes import WorkerOutcome
from ottoscaler.spec import Retry, Spec, parse_spec
from ottoscaler.stream.base import Accepted, Claim, Closing, Outcome, Registration, Writing
from ottoscaler.stream.memory import MemoryServer, MemoryStream


def parsed(*arguments: str) -> argparse.Namespace:
    """The arguments of one call of send."""
    return build_parser({"send"}).parse_args(["send", *arguments])


def test_an_event_has_the_fields_that_the_stream_knows() -> None:
    """Type, count, task and template are fields; every --meta is one more."""
    arguments = ("scale_up", "--pods", "3", "--task-id", "t", "--template", "x", "--meta", "a=b=c", "--meta", "d=")
    assert event_pairs(parsed(*arguments)) == [
        ("type", "scale_up"),
        ("pod_count", "3"),
        ("task_id", "t"),
        ("template", "x"),
        ("a", "b=c"),
        ("d", ""),
    ]


def test_what_an_event_asks_for_itself_is_its_spec() -> None:
    """Image, command, time and retries become `otto.spec`, and only what was given; words are split as a shell does."""
    arguments = ("--image", "busybox", "--command", "sh -c 'make test'", "--args", "", "--timeout", "60")
    retries = ("--max-attempts", "3", "--retry-delay", "1.5", "--retry-on", "OutOfMemory", "--retry-on", "platform")
    pairs = dict(event_pairs(parsed("scale_up", "--pods", "1", "--request-id", "r-1", *arguments, *retries)))
    assert pairs["otto.request_id"] == "r-1"
    assert parse_spec(pairs["otto.spec"]) == Spec(
        image="busybox",
        command=("sh", "-c", "make test"),
        args=(),
        timeout_seconds=60,
        retry=Retry(3, 1.5, ("OutOfMemory", "platform")),
    )
    alone = dict(event_pairs(parsed("scale_up", "--pods", "1", "--timeout", "5")))
    assert alone["otto.spec"] == '{"timeout_seconds": 5}'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--pods", "1", "--command", "sh -c 'make"),
            '--command is "sh -c \'make", expected words as a shell has them (No closing quotation)',
        ),
        (
            ("--pods", "1", "--max-attempts", "0"),
            "field otto.spec.retry.max_attempts is 0, expected a whole number from 1 to 100",
        ),
        (("--pods", "three"), "field pod_count is 'three', expected a whole number from 1 to 1000000"),
        (("--pods", "0"), "field pod_count is '0', expected a whole number from 1 to 1000000"),
        (("--pods", "1", "--meta", "ab"), "--meta is 'ab', expected NAME=VALUE"),
        (("--pods", "1", "--meta", "=b"), "--meta is '=b', expected NAME=VALUE"),
        (
            ("--pods", "1", "--meta", "a-b=1", "--meta", "a.b=2"),
            "metadata 'a-b' and 'a.b' both become OTTO_META_A_B, expected names that differ in letters or digits",
        ),
    ],
)
def test_an_event_that_would_be_refused_is_not_sent(arguments: tuple[str, ...], message: str) -> None:
    """What would become a dead letter is refused at once, with the same sentence."""
    with pytest.raises(BadEvent) as caught:
        event_pairs(parsed("scale_up", *arguments))
    assert str(caught.value) == message


async def test_a_lost_answer_adds_nothing_twice(autojump_clock: MockClock) -> None:
    """When the answer got lost the call is repeated, and the stream has one event."""
    server = MemoryServer()
    server.lose_answer_of.add("add_event")
    event_id = await add_event(MemoryStream(server, "cli"), [("type", "scale_up"), ("pod_count", "1")])
    assert len(server.events) == 1
    assert event_id


async def test_a_redis_that_stays_away_is_given_up(autojump_clock: MockClock) -> None:
    """After a few attempts the error says what is wrong, instead of waiting for ever."""
    server = MemoryServer()
    server.weather = "refusing"
    with pytest.raises(Unavailable), trio.fail_after(60):
        await add_event(MemoryStream(server, "cli"), [("type", "scale_up"), ("pod_count", "1")])


def outcome(index: int, word: str, cause: str = "", reason: str = "") -> str:
    """A worker's outcome as the progress holds it."""
    return WorkerOutcome(f"otto-agent-{index}-1-0", index, 1, word, cause, reason, None, "", "").to_json()  # type: ignore[arg-type]  # words are literals there


def result(event_id: str, status: str, counts: tuple[int, int, int], workers: list[str]) -> tuple[tuple[str, str], ...]:
    """A result entry."""
    succeeded, failed, terminated = map(str, counts)
    return (
        ("v", "1"),
        ("event_id", event_id),
        ("type", "scale_up"),
        ("status", status),
        ("requested", "2"),
        ("succeeded", succeeded),
        ("failed", failed),
        ("terminated", terminated),
        ("workers", f"[{','.join(workers)}]"),
    )


async def begin(server: MemoryServer) -> tuple[MemoryStream, Claim]:
    """An event of two workers that a scaler has taken."""
    scaler = MemoryStream(server, "scaler")
    era = await scaler.open_group("0", "default")
    await scaler.renew(1000, era.id)
    (entry,) = await scaler.read(1, 1)
    registration = Registration(entry.id, "work", (("type", "scale_up"), ("pod_count", "2")), "", 2)
    (epoch,) = await scaler.register([registration])
    return scaler, Claim(entry.id, "scaler", epoch)


async def test_wait_tells_each_step_once(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Pods created, workers ended and the result are told in their order; a failed worker makes the exit code 1."""
    server = MemoryServer()
    lines: list[str] = []
    codes: list[int] = []
    event_id = await add_event(MemoryStream(server, "cli"), [("type", "scale_up"), ("pod_count", "2")])

    async def wait() -> None:
        codes.append(await wait_result(MemoryStream(server, "cli"), event_id, lines.append))

    nursery.start_soon(wait)
    await trio.sleep(5)
    scaler, claim = await begin(server)
    await scaler.record([Writing(claim, accepted=(Accepted(1, 1, "u1", 1), Accepted(2, 1, "u2", 1)))])
    await trio.sleep(1)
    workers = [outcome(1, "succeeded"), outcome(2, "failed", "ExitCode", "the worker exited with code 3")]
    await scaler.record([Writing(claim, outcomes=(Outcome(1, workers[0]),))])
    await trio.sleep(1)
    await scaler.close(Closing(event_id, "results", result(event_id, "partial", (1, 1, 0), workers), claim))
    await trio.sleep(1)
    assert lines == [
        "no scaler has taken the event yet",
        "2 of 2 pods created",
        "otto-agent-1-1-0  succeeded",
        "otto-agent-2-1-0  failed  ExitCode: the worker exited with code 3",
        "partial: 1 succeeded, 1 failed of 2",
    ]
    assert codes == [1]


@pytest.mark.parametrize(
    ("status", "counts", "code", "line"),
    [
        ("succeeded", (2, 0, 0), 0, "succeeded: 2 succeeded of 2"),
        ("partial", (1, 0, 1), 0, "partial: 1 succeeded, 1 terminated of 2"),
        ("failed", (0, 2, 0), 1, "failed: 2 failed of 2"),
        ("partial", (0, 0, 0), 0, "partial: none of 2"),
    ],
)
async def test_the_exit_code_says_whether_workers_failed(
    autojump_clock: MockClock, status: str, counts: tuple[int, int, int], code: int, line: str
) -> None:
    """Being stopped is not failing: only failed workers make the exit code 1."""
    server = MemoryServer()
    lines: list[str] = []
    event_id = await add_event(MemoryStream(server, "cli"), [("type", "scale_up"), ("pod_count", "2")])
    scaler, claim = await begin(server)
    await scaler.close(Closing(event_id, "results", result(event_id, status, counts, []), claim))
    assert await wait_result(MemoryStream(server, "cli"), event_id, lines.append) == code
    assert lines == [line]


async def test_a_refused_event_is_told_with_its_reason(autojump_clock: MockClock) -> None:
    """An event that went to the dead letters ends the wait with its reason and exit code 1."""
    server = MemoryServer()
    lines: list[str] = []
    event_id = await add_event(MemoryStream(server, "cli"), [("type", "scale_up"), ("pod_count", "2")])
    scaler, claim = await begin(server)
    await scaler.close(Closing(event_id, "dlq", (("reason", "field template is 'x', expected y"),), claim))
    assert await wait_result(MemoryStream(server, "cli"), event_id, lines.append) == 1
    assert lines == ["refused: field template is 'x', expected y"]


async def test_a_request_made_before_is_waited_for(autojump_clock: MockClock) -> None:
    """An event whose request id means an earlier one is told as that one, with its workers and its exit code."""
    server = MemoryServer()
    lines: list[str] = []
    first = await add_event(MemoryStream(server, "cli"), [("type", "scale_up"), ("pod_count", "1")])
    scaler, claim = await begin(server)
    workers = [outcome(1, "failed", "ExitCode", "the worker exited with code 3")]
    await scaler.close(Closing(first, "results", result(first, "failed", (0, 1, 0), workers), claim))
    second = await add_event(MemoryStream(server, "cli"), [("type", "scale_up"), ("pod_count", "1")])
    scaler, claim = await begin(server)
    repeated = (*result(second, "already_processed", (0, 0, 0), []), ("original", first))
    await scaler.close(Closing(second, "results", repeated, claim))
    assert await wait_result(MemoryStream(server, "cli"), second, lines.append) == 1
    assert lines == [
        f"the same was asked for before, as event {first}",
        "otto-agent-1-1-0  failed  ExitCode: the worker exited with code 3",
        "failed: 1 failed of 2",
    ]


async def test_an_end_that_was_trimmed_is_no_success(autojump_clock: MockClock) -> None:
    """Where the result is gone already nobody knows whether workers failed: that is said, with exit code 1."""
    server = MemoryServer()
    lines: list[str] = []
    event_id = await add_event(MemoryStream(server, "cli"), [("type", "scale_up"), ("pod_count", "2")])
    scaler, claim = await begin(server)
    await scaler.close(Closing(event_id, "results", result(event_id, "succeeded", (2, 0, 0), []), claim))
    server.results.entries.clear()
    assert await wait_result(MemoryStream(server, "cli"), event_id, lines.append) == 1
    assert lines == ["ended; how was trimmed from the results since (RESULTS_KEEP, RESULTS_MAX_BYTES)"]


def test_the_in_memory_stream_of_another_process_cannot_be_reached(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """memory:// is refused with a sentence that says why."""
    from ottoscaler import signals
    from ottoscaler.cli import main

    monkeypatch.setattr(signals, "restore_signals", lambda: None)
    assert main(["send", "scale_up", "--pods", "1", "--redis-url", "memory://"]) == 2
    assert capsys.readouterr().err == (
        "ottoscaler: REDIS_URL is 'memory://', expected the address of a Redis: "
        "that stream lives in the scaler's own process\n"
    )
