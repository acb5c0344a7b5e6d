"""Entries with otto.request_id: the first stands, its repetition is answered by it, other content is refused."""

from __future__ import annotations

import msgspec
import trio
from trio.testing import MockClock

from ottoscaler.events import Limits
from tests.calls.house import House, open_house

PAIRS = (("type", "scale_up"), ("pod_count", "2"), ("task_id", "t"), ("otto.request_id", "r"))


def results(house: House) -> list[dict[str, str]]:
    """All results so far."""
    return [{name.decode(): value.decode() for name, value in pairs} for pairs in house.server.results.entries.values()]


async def test_a_repeated_entry_is_answered_by_the_first(autojump_clock: MockClock) -> None:
    """It ends at once with a result of its own that names the first event, and runs nothing; in any order of fields."""
    async with open_house() as house:
        await house.open()
        first = house.server.add_entry((*PAIRS, ("timestamp", "1")))
        await trio.sleep(1)
        second = house.server.add_entry((*reversed(PAIRS), ("timestamp", "2")))
        await trio.sleep(30)
        third = house.server.add_entry(PAIRS)
        await trio.sleep(5)
        by_event = {result["event_id"]: result for result in results(house)}
        assert by_event[first]["status"] == "succeeded"
        for repeated in (second, third):
            result = by_event[repeated]
            assert (result["status"], result["original"], result["workers"]) == ("already_processed", first, "[]")
            assert (result["type"], result["task_id"], result["requested"]) == ("scale_up", "t", "2")
        assert house.workers_run == 2
        assert house.server.group().pending == {}


async def test_other_content_is_a_dead_letter(autojump_clock: MockClock) -> None:
    """An entry that asks for something else under a known id is refused, with the event that has the id."""
    async with open_house() as house:
        await house.open()
        first = house.server.add_entry(PAIRS)
        house.server.add_entry((*PAIRS, ("more", "x")))
        await trio.sleep(20)
        (letter,) = house.server.dead_letters.entries.values()
        fields = {name.decode(): value.decode() for name, value in letter}
        assert fields["cause"] == "RequestMismatch"
        assert f"'r', which event {first} of other content has" in fields["reason"]
        assert ["more", "x"] in msgspec.json.decode(fields["entry"])
        assert house.workers_run == 2


async def test_calls_and_entries_share_request_ids(autojump_clock: MockClock) -> None:
    """A call repeats an entry, and an entry a call, where both ask for the same."""
    async with open_house() as house:
        one = await house.open()
        first = house.server.add_entry(PAIRS)
        await trio.sleep(1)
        answer = await one.up(2, task_id="t", request_id="r")
        assert answer.status == "already_processed"
        assert all(first in name for name in answer.worker_pod_names)
        asked = await one.up(2, task_id="t", request_id="s")
        house.server.add_entry((*PAIRS[:3], ("otto.request_id", "s")))
        await trio.sleep(20)
        assert asked.status == "success"
        assert sorted(result["status"] for result in results(house)) == ["already_processed", "succeeded", "succeeded"]
        assert house.workers_run == 4


async def test_a_replay_goes_on_under_its_request_id(autojump_clock: MockClock) -> None:
    """A dead letter that is replayed runs, although its id is known; the call that asks again is told of it."""
    async with open_house() as house:
        one = await house.open()
        stream = one.scaler.stream
        first = house.server.add_entry(PAIRS)
        await trio.sleep(0.5)
        house.server.progress[first]["failures"] = "9"
        one.kill()
        two = await house.open("two", event_max_failures="3")
        await trio.sleep(10)
        letters = await stream.read_entries("dlq", "0", 10, 0)
        (letter_id,) = [id_ for id_, fields in letters if fields["event_id"] == first]
        (replayed,) = await stream.replay_dead_letters([letter_id])
        await trio.sleep(20)
        answer = await two.up(2, task_id="t", request_id="r")
        assert answer.status == "already_processed"
        assert all(replayed.event_id in name for name in answer.worker_pod_names)
        assert len(answer.worker_pod_names) == 2


async def test_a_replay_that_is_refused_and_replayed_again_runs(autojump_clock: MockClock) -> None:
    """Its request id means the last replay, from the moment of that on: who asks meanwhile waits for it."""
    async with open_house() as house:
        one = await house.open()
        stream, poller = one.scaler.stream, one.scaler.rings._poller
        poller._limits = Limits(max_pods=1)
        assert (await one.up(2, task_id="t", request_id="r")).status == "failed"
        ((letter_id, _),) = await stream.read_entries("dlq", "0", 10, 0)
        await stream.replay_dead_letters([letter_id])
        again = await one.up(2, task_id="t", request_id="r")
        assert (again.first_status, "TooManyPods" in again.message) == ("failed", True)
        poller._limits = Limits()
        ((letter_id, _),) = await stream.read_entries("dlq", "0", 10, 0)
        (replayed,) = await stream.replay_dead_letters([letter_id])
        answer = await one.up(2, task_id="t", request_id="r")
        assert (answer.status, answer.first_status) == ("already_processed", "success")
        assert all(replayed.event_id in name for name in answer.worker_pod_names)
        await trio.sleep(20)
        assert house.workers_run == 2
