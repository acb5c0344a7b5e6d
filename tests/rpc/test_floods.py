"""What one connection may ask beside its calls, and what it gets beyond that: small frames, PINGs, headers, streams."""

from __future__ import annotations

from urllib.parse import unquote

import h2.settings
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from ottoscaler.rpc.http2 import floods
from ottoscaler.rpc.http2.codes import Code
from tests.rpc.raw import CHECK, ONE, SCALE_UP, codes, frame, logged, open_raw

RESET = frame(3, bytes([0, 0, 0, 8]), stream=1)
FLOODS = {
    "SETTINGS": frame(4),
    "PRIORITY": frame(2, bytes([0, 0, 0, 0, 7]), stream=3),
    "WINDOW_UPDATE": frame(8, bytes([0, 0, 0, 1])),
    "RST_STREAM": RESET,
    "unknown": frame(77),
    "empty DATA": frame(0, stream=1),
    "padded DATA": frame(0, bytes([3, 0, 0, 0]), flags=8, stream=1),
    "acknowledged PING": frame(6, bytes(8), flags=1),
}


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_of_small_frames_ends_its_connection(
    autojump_clock: MockClock, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Frames that cost little to send and more to take: some thousands at once are too many, and the log says whose."""
    async with open_raw() as stage:
        await stage.client.begin(SCALE_UP)
        for _ in range(50):
            if stage.over.is_set():
                break
            await stage.client.send(FLOODS[kind] * 100)
            await trio.testing.wait_all_tasks_blocked()
        await stage.client.closed.wait()
        assert stage.client.goodbyes.heard[-1].code == codes().ENHANCE_YOUR_CALM
        assert stage.places() == 0
    (fact,) = logged(caplog)
    assert (fact["peer"], fact["code"]) == ("10.0.0.7:4711", "FLOOD")


async def test_a_few_small_frames_are_nothing(autojump_clock: MockClock) -> None:
    """What clients send beside their calls goes on for ever."""
    async with open_raw(calls_per_second=0) as stage:
        for _ in range(300):
            await stage.client.send((FLOODS["WINDOW_UPDATE"] + FLOODS["SETTINGS"]) * 4)
            assert (await stage.client.call(SCALE_UP, ONE)).code == Code.OK
        await stage.client.send(FLOODS["SETTINGS"] * 3000)
        await trio.sleep(10)
        await stage.client.send(FLOODS["SETTINGS"] * 3000)
        assert (await stage.client.call(SCALE_UP, ONE)).code == Code.OK


async def test_a_huge_table_of_headers_is_not_filled(autojump_clock: MockClock) -> None:
    """However much a client would keep of answers' headers: here no more is kept for it, and searched, than it is by
    default.
    """
    async with open_raw(calls_per_second=0) as stage:
        stage.client.h2.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: 2**32 - 1})
        await stage.client.flush()
        for number in range(100):
            answer = await stage.client.call(f"/none/{number}")
            assert (answer.code, f"/none/{number}" in unquote(answer.headers["grpc-message"])) == (12, True)
        (connection,) = stage.server._connections
        assert len(connection._streams._h2.encoder.header_table.dynamic_entries) < 64


async def test_calls_that_are_begun_and_cancelled_at_once_end_their_connection(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Rapid resets (CVE-2023-44487) are a flood like others; until then each gives its place back."""
    monkeypatch.setattr(floods, "FRAMES_AT_ONCE", 300.0)
    async with open_raw(calls_per_second=0, max_waiting_calls=100) as stage:
        stage.door.holds = True
        for _ in range(10_000):
            if stage.over.is_set():
                break
            number = await stage.client.begin(SCALE_UP, ONE)
            stage.client.h2.reset_stream(number, codes().CANCEL)
            await stage.client.flush()
            await trio.testing.wait_all_tasks_blocked()
            assert stage.places() == 0
        await stage.client.closed.wait()
    assert [fact["code"] for fact in logged(caplog)] == ["FLOOD"]


async def test_calls_that_are_refused_again_and_again_end_their_connection(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A refusal costs us more than the client."""
    monkeypatch.setattr(floods, "FRAMES_AT_ONCE", 300.0)
    async with open_raw(calls_per_second=1) as stage:
        for _ in range(5000):
            if stage.over.is_set():
                break
            await stage.client.begin(SCALE_UP, ONE)
            await trio.testing.wait_all_tasks_blocked()
        await stage.client.closed.wait()
    assert [fact["code"] for fact in logged(caplog)] == ["FLOOD"]
    assert len(logged(caplog, "call refused")) == 1


async def test_calls_that_find_no_place_for_their_message_end_their_connection_in_the_end(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls without a message, more than may wait for one, are refusals like others."""
    monkeypatch.setattr(floods, "FRAMES_AT_ONCE", 300.0)
    async with open_raw() as stage:
        for _ in range(1000):
            if stage.over.is_set():
                break
            await stage.client.begin(CHECK)
            await trio.testing.wait_all_tasks_blocked()
        await stage.client.closed.wait()
    assert [fact["code"] for fact in logged(caplog)] == ["FLOOD"]


async def test_pings_are_answered_and_too_many_end_the_connection(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """PINGs every 5 s are fine, and such that follow an answer; of others a few only, as with gRPC's own servers."""
    async with open_raw() as stage:
        client = stage.client

        async def ping() -> None:
            client.h2.ping(b"12345678")
            await client.flush()
            await trio.testing.wait_all_tasks_blocked()

        for _ in range(20):
            await ping()
            await trio.sleep(5)
        for _ in range(20):
            await ping()
            assert (await client.call(SCALE_UP, ONE)).code == Code.OK
        for _ in range(3):
            await ping()
        assert (client.echoes, stage.over.is_set()) == (43, False)
        await ping()
        await stage.client.closed.wait()
        (goodbye,) = client.goodbyes.heard
        assert (goodbye.code, goodbye.words) == (codes().ENHANCE_YOUR_CALM, "too_many_pings")
    (fact,) = logged(caplog)
    assert (fact["peer"], fact["code"]) == ("10.0.0.7:4711", "PINGS")


async def test_headers_have_a_limit(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A list of headers beyond 16 KiB, and one that never ends, end the connection."""
    async with open_raw() as stage:
        await stage.client.call(CHECK)
        await stage.client.begin(SCALE_UP, headers=[("x", "y" * 17_000)])
        await stage.client.closed.wait()
        assert stage.client.goodbyes.heard[-1].code == codes().ENHANCE_YOUR_CALM
    async with open_raw() as stage:
        await stage.client.call(CHECK)
        await stage.client.send(frame(1, b"", stream=3) + frame(9, b"", stream=3) * 100)
        await stage.client.closed.wait()
        assert stage.client.goodbyes.heard[-1].code == codes().PROTOCOL_ERROR
    assert [fact["code"] for fact in logged(caplog)] == ["PROTOCOL", "PROTOCOL"]


async def test_streams_beyond_the_limit_are_refused_one_by_one(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that begins more calls than it was told it may is refused these alone, and logged."""
    monkeypatch.setattr("ottoscaler.rpc.server.MORE_CALLS", -95)  # of 4 + 32 + 32 + 32 places
    async with open_raw(max_waiting_calls=4) as stage:
        client = stage.client
        await client.wait(lambda: client.h2.remote_settings.max_concurrent_streams == 5)
        first = [await client.begin(path) for path in (CHECK, CHECK, SCALE_UP, CHECK, CHECK)]
        client.h2.remote_settings[3] = 100  # it does not look at SETTINGS_MAX_CONCURRENT_STREAMS
        client.h2.remote_settings.acknowledge()
        more = await client.begin(SCALE_UP, ONE)
        assert (await client.wait_end(more)).reset == codes().REFUSED_STREAM
        client.h2.send_data(first[2], bytes([0, 0, 0, 0, len(ONE)]) + ONE, end_stream=True)
        await client.flush()
        assert (await client.wait_end(first[2])).code == Code.OK
    facts = [fact for fact in logged(caplog, "call refused") if fact["code"] == "REFUSED_STREAM"]
    assert [(fact["peer"], fact["rpc"]) for fact in facts] == [("10.0.0.7:4711", SCALE_UP)]
