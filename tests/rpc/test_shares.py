"""What one client may take of health checks and short calls: so much that all the others are served as before."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from ottoscaler.rpc.http2.codes import Code
from tests.rpc.raw import CHECK, open_raw

STATUS = "/ottoscaler.v1.OttoscalerService/GetWorkerStatus"


@pytest.mark.parametrize("path", [CHECK, STATUS])
async def test_calls_without_a_message_hold_up_no_other_call(autojump_clock: MockClock, path: str) -> None:
    """Calls that are open and bring no message, as many as there may be, take no place of a call that brings its own:
    neither for others nor for the same client; and they leave room for others whose message comes a little later.
    """
    async with open_raw(calls_per_second=0) as stage:
        mine = [await stage.client.begin(path) for _ in range(100)]
        await trio.testing.wait_all_tasks_blocked()
        refused = [number for number in mine if stage.client.streams[number].code == Code.RESOURCE_EXHAUSTED]
        assert (len(refused), stage.places()) == (68, 32)
        assert (await stage.client.call(path)).code == Code.OK
        other = await stage.connect("10.0.0.8")
        late = await other.begin(path)
        await trio.testing.wait_all_tasks_blocked()
        other.h2.send_data(late, bytes(5), end_stream=True)
        await other.flush()
        assert (await other.wait_end(late)).code == Code.OK
        await trio.sleep(11)
        assert stage.places() == 0


async def test_one_client_has_half_of_the_short_calls(autojump_clock: MockClock) -> None:
    """Of questions for workers that take long, one client has half of the places, and the others the other half."""
    async with open_raw() as stage:
        stage.door.holds_status = True
        mine = [await stage.client.begin(STATUS, b"") for _ in range(40)]
        await trio.testing.wait_all_tasks_blocked()
        codes = [stage.client.streams[number].code for number in mine]
        assert (codes.count(None), codes.count(Code.RESOURCE_EXHAUSTED)) == (16, 24)
        assert stage.client.streams[mine[-1]].headers["grpc-message"] == (
            "16 short calls of 10.0.0.7 are being answered, which is the limit of one client"
        )
        other = await stage.connect("10.0.0.8")
        his = [await other.begin(STATUS, b"") for _ in range(16)]
        await trio.testing.wait_all_tasks_blocked()
        assert [other.streams[number].code for number in his] == [None] * 16
        stage.door.release.set()
        for number in his:
            assert (await other.wait_end(number)).code == Code.OK


async def test_answers_that_are_not_taken_hold_up_no_other_check(autojump_clock: MockClock) -> None:
    """A client that lets no answer in holds half of the places of health checks, for a second."""
    async with open_raw(settings={4: 0}) as stage:  # SETTINGS_INITIAL_WINDOW_SIZE
        mine = [await stage.client.begin(CHECK, b"") for _ in range(40)]
        await trio.testing.wait_all_tasks_blocked()
        assert [stage.client.streams[number].code for number in mine].count(Code.RESOURCE_EXHAUSTED) == 24
        other = await stage.connect("10.0.0.8")
        assert (await other.call(CHECK)).code == Code.OK
        await trio.sleep(1.1)
        assert stage.places() == 0
