"""The store of warnings: what is kept of them, for how long, and how somebody waits for one."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ottoscaler.pod_warnings import PodWarnings


def event(name: str = "otto-agent-1", reason: str = "FailedMount", **fields: Any) -> dict[str, Any]:
    """A warning as the API sends it."""
    about = {"kind": "Pod", "name": name, "uid": fields.pop("uid", "u1")}
    times = {"firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:09Z"}
    return {"involvedObject": about, "reason": reason, "message": "no", **times, **fields}


async def test_only_what_tells_a_cause_is_kept() -> None:
    """Warnings of other pods, of other things and of other reasons are dropped."""
    warnings = PodWarnings()
    warnings.note(event("somebody-else"))
    warnings.note(event(reason="MissingClusterDNS"))
    warnings.note({**event(), "involvedObject": {"kind": "Job", "name": "otto-agent-1"}})
    warnings.note({"reason": "FailedMount"})
    assert repr(warnings) == "<PodWarnings of 0 pods>"
    warnings.note(event())
    assert [warning.reason for warning in warnings.of("otto-agent-1", "u1")] == ["FailedMount"]


async def test_a_warning_belongs_to_one_pod() -> None:
    """A pod of the same name with another uid has its own warnings, and the former pod's are gone."""
    warnings = PodWarnings()
    warnings.note(event(reason="Unhealthy"))
    warnings.note(event(uid="u2"))
    assert warnings.of("otto-agent-1", "u1") == ()
    assert [warning.reason for warning in warnings.of("otto-agent-1", "u2")] == ["FailedMount"]


async def test_a_repeated_warning_takes_the_place_of_the_former() -> None:
    """Of each reason the last words are kept, with the time over which they were repeated, in both forms of events."""
    warnings = PodWarnings()
    warnings.note(event())
    series = {"count": 3, "lastObservedTime": "2026-01-01T00:00:20.5Z"}
    newer: dict[str, Any] = {
        "firstTimestamp": None,
        "lastTimestamp": None,
        "eventTime": "2026-01-01T00:00:00.5Z",
        "series": series,
    }
    warnings.note(event(message="still \n no", **newer))
    (warning,) = warnings.of("otto-agent-1", "u1")
    assert (warning.message, warning.last - warning.first) == ("still no", 20.0)


async def test_a_warning_without_times_is_read() -> None:
    """Odd times and a missing message make no error."""
    warnings = PodWarnings()
    warnings.note(event(firstTimestamp="soon", lastTimestamp=7, message=None))
    (warning,) = warnings.of("otto-agent-1", "u1")
    assert (warning.message, warning.first, warning.last) == ("", 0.0, 0.0)


async def test_no_more_pods_are_kept_than_the_bound() -> None:
    """The pods that were silent for longest are forgotten first."""
    warnings = PodWarnings(keep=2)
    for name in ("otto-agent-1", "otto-agent-2", "otto-agent-1", "otto-agent-3"):
        warnings.note(event(name))
    assert [bool(warnings.of(f"otto-agent-{number}", "u1")) for number in (1, 2, 3)] == [True, False, True]


async def test_pods_that_are_gone_are_forgotten(autojump_clock: MockClock) -> None:
    """A warning whose pod does not exist goes, once it had time to appear."""
    warnings = PodWarnings()
    for name in ("otto-agent-1", "otto-agent-2"):
        warnings.note(event(name))
    warnings.forget_absent(lambda name: False)
    assert len(warnings.of("otto-agent-1", "u1")) == 1
    await trio.sleep(61)
    warnings.forget_absent(lambda name: name == "otto-agent-2")
    assert (warnings.of("otto-agent-1", "u1"), len(warnings.of("otto-agent-2", "u1"))) == ((), 1)


async def test_a_waiter_is_woken_by_news_of_its_pod_only(autojump_clock: MockClock) -> None:
    """One who waits for a pod's warnings returns when they are others than those that were seen, and leaves nothing."""
    warnings = PodWarnings()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(warnings.wait_change, "otto-agent-1", "u1", ())
        await wait_all_tasks_blocked()
        warnings.note(event("otto-agent-2"))
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        warnings.note(event())
    await warnings.wait_change("otto-agent-1", "u1", ())
    with trio.move_on_after(1) as limit:
        await warnings.wait_change("otto-agent-1", "u1", warnings.of("otto-agent-1", "u1"))
    assert limit.cancelled_caught
    assert warnings._waiting == {}
