"""An event's own word on retries and on what it may ask for, as the spine heeds it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.backoff import Backoff
from ottoscaler.events import BadEntry, Event, Limits, parse_entry
from ottoscaler.retries import RetryPolicy
from ottoscaler.spec import Retry
from ottoscaler.spine.handler import NO_LIMITS
from ottoscaler.stream.memory import MemoryServer
from tests.spine.scaler import Scaler
from tests.spine.stage import open_stage
from tests.spine.test_retries import failing
from tests.spine.world import World

POLICY = RetryPolicy(backoff=Backoff(5.0, 60.0, jitter=0.0))


@pytest.mark.parametrize(
    ("asked", "cause", "started", "again"),
    [
        ({}, "ExitCode", True, False),
        ({"max_attempts": 2}, "ExitCode", True, True),
        ({"max_attempts": 2, "retryable_failures": ("OutOfMemory",)}, "ExitCode", True, False),
        ({"max_attempts": 2, "retryable_failures": ("ExitCode",)}, "ExitCode", True, True),
        ({"max_attempts": 2, "retryable_failures": ("own",)}, "ExitCode", True, True),
        ({"max_attempts": 2, "retryable_failures": ("platform",)}, "ExitCode", True, False),
        ({"retryable_failures": ("own",)}, "Evicted", False, False),
        ({"retryable_failures": ("Evicted",)}, "Evicted", False, True),
        ({"max_attempts": 9}, "InvalidImageName", False, False),
    ],
)
def test_an_event_says_how_often_and_after_what(
    asked: dict[str, object], cause: str, started: bool, again: bool
) -> None:
    """Its attempts stand in place of WORKER_MAX_ATTEMPTS; of the causes that are retried only those it names are."""
    assert POLICY.asked(Retry(**asked)).may_retry([], cause, started) is again  # type: ignore[arg-type]  # a table


def test_what_was_moved_counts_by_its_new_class() -> None:
    """A class that an event names means what is in that class here."""
    moved = replace(POLICY, moved={"ExitCode": "platform"}, platform_retry_started=True)
    assert moved.asked(Retry(retryable_failures=("platform",))).may_retry([], "ExitCode", True)
    assert not moved.asked(Retry(retryable_failures=("own",))).may_retry([], "ExitCode", True)


def test_a_delay_of_its_own_does_not_grow() -> None:
    """retry_delay_seconds stands in place of the backoff, 0 included; without it the backoff goes on."""
    for given in (0.0, 2.0):
        assert [POLICY.asked(Retry(retry_delay_seconds=given)).delay(n) for n in (1, 2, 9)] == [given] * 3
    assert POLICY.asked(Retry(max_attempts=5)).delay(2) == 10.0


async def test_a_worker_is_run_again_as_its_event_asks(autojump_clock: MockClock) -> None:
    """With three attempts, half a second apart, a worker that fails twice succeeds, though the settings give it one."""
    spec = '{"retry": {"max_attempts": 3, "retry_delay_seconds": 0.5, "retryable_failures": ["ExitCode"]}}'
    async with open_stage(failing(2)) as stage:
        progress = await stage.add(type="scale_up", pod_count=1, **{"otto.spec": spec})
        assert await stage.work(progress).run() is None
        (result,) = await stage.results()
        assert result["status"] == "succeeded"
        assert [attempt for _, _, attempt in stage.world.runs] == [1, 2, 3]
        assert trio.current_time() < 15


def refuses_all(event: Event) -> str | None:
    """A policy."""
    return f"field type is {event.type!r}, expected nothing today"


async def test_what_the_policy_refuses_is_a_dead_letter(autojump_clock: MockClock) -> None:
    """Its cause is PolicyRefused, its reason the policy's; no pod is made of it."""
    world, server = World(), MemoryServer()
    scaler = Scaler(world, server, "s1")

    def refuse(scaler: Scaler) -> None:
        scaler.rings._poller._limits = Limits(policy=refuses_all)

    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        nursery.start_soon(scaler.run, refuse)
        event_id = await scaler.stream.add_event([("type", "scale_up"), ("pod_count", "1")], "token")
        await trio.sleep(10)
        letters = await scaler.stream.read_entries("dlq", "0", 10, 0.0)
        nursery.cancel_scope.cancel(reason="seen enough")
    assert [(fields["event_id"], fields["cause"], fields["reason"]) for _, fields in letters] == [
        (event_id, "PolicyRefused", "field type is 'scale_up', expected nothing today")
    ]
    assert world.runs == []


def test_what_was_accepted_once_is_not_judged_again() -> None:
    """Who takes an event over asks no policy."""
    assert NO_LIMITS.policy is None


def test_only_what_is_otherwise_good_is_judged() -> None:
    """A policy is never asked about an entry that is no event."""
    bad = parse_entry("5-0", ((b"type", b"explode"),), Limits(policy=refuses_all))
    assert isinstance(bad, BadEntry)
    assert bad.cause == "UnknownType"
