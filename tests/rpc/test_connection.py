"""One connection, frame by frame: answers as gRPC wants them, windows, floods, silence, and the way it ends."""

from __future__ import annotations

import gzip
import struct
import zlib
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from ottoscaler.rpc.door import PipelineNews, ScaleAnswer
from ottoscaler.rpc.http2.codes import Code
from ottoscaler.rpc.v1 import pipeline_pb2, scaling_pb2
from tests.rpc.raw import CHECK, ONE, PIPELINE, SCALE_UP, Client, Stage, codes, frame, logged, open_raw

WINDOW = 4  # SETTINGS_INITIAL_WINDOW_SIZE


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("content-type", "application/json")], "415"),
        ([("content-type", "")], "415"),
        ([("content-type", "application/grpcx")], "415"),
        ([(":method", "GET")], "405"),
    ],
)
async def test_what_is_no_call_is_told_so_in_the_words_of_http(
    autojump_clock: MockClock, headers: list[tuple[str, str]], status: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that is not gRPC has a status of HTTP for an answer, and a line in the log; the connection goes on."""
    async with open_raw() as stage:
        stream = await stage.client.call(SCALE_UP, ONE, headers)
        assert (stream.headers, stream.is_ended) == ({":status": status}, True)
        assert (await stage.client.call(CHECK)).code == Code.OK
        assert stage.door.asked == []
    (fact,) = logged(caplog, "call refused")
    assert (fact["peer"], fact["code"]) == ("10.0.0.7:4711", f"HTTP {status}")


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto", "application/grpc;x=y"])
async def test_the_kinds_of_grpc_are_one(autojump_clock: MockClock, kind: str) -> None:
    """Clients name their messages, or not."""
    async with open_raw() as stage:
        stream = await stage.client.call(SCALE_UP, ONE, [("content-type", kind)])
        assert (stream.code, stream.headers[":status"]) == (Code.OK, "200")
        assert stream.headers["content-type"] == "application/grpc"


async def test_a_refusal_is_one_frame_of_headers(autojump_clock: MockClock) -> None:
    """An error without an answer is told in one go, its words percent-encoded; a client that has not said all is told
    to stop.
    """
    async with open_raw() as stage:
        number = await stage.client.begin("/x/100% ü")
        stream = await stage.client.wait_end(number)
        await stage.client.wait(lambda: stream.reset is not None)
        assert (stream.headers[":status"], stream.code) == ("200", Code.UNIMPLEMENTED)
        assert stream.headers["grpc-message"] == "'/x/100%25 %C3%83%C2%BC' is not served here"
        assert stream.reset == codes().NO_ERROR


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
async def test_compressed_messages_are_read(autojump_clock: MockClock, compress: Any) -> None:
    """gzip and deflate are read; what is too large when it is decompressed is refused, and so is what is neither."""
    async with open_raw(max_message_bytes=2000) as stage:
        for given, code in [
            (compress(ONE), Code.OK),
            (compress(bytes(100_000)), Code.RESOURCE_EXHAUSTED),
            (compress(ONE)[:-9], Code.INVALID_ARGUMENT),
            (b"no such thing", Code.INVALID_ARGUMENT),
        ]:
            number = await stage.client.begin(SCALE_UP, headers=[("grpc-encoding", "gzip")])
            stage.client.h2.send_data(number, struct.pack(">BI", 1, len(given)) + given, end_stream=True)
            await stage.client.flush()
            assert (await stage.client.wait_end(number)).code == code
        assert len(stage.door.asked) == 1


async def test_an_encoding_that_is_not_known_is_refused_with_those_that_are(autojump_clock: MockClock) -> None:
    """The answer names what may be sent instead."""
    async with open_raw() as stage:
        stream = await stage.client.call(SCALE_UP, ONE, [("grpc-encoding", "snappy")])
        assert (stream.code, stream.headers["grpc-accept-encoding"]) == (Code.UNIMPLEMENTED, "identity,deflate,gzip")


@pytest.mark.parametrize(
    ("timeout", "code"),
    [
        ("100m", Code.DEADLINE_EXCEEDED),
        ("0n", Code.DEADLINE_EXCEEDED),
        ("1", Code.INVALID_ARGUMENT),
        ("123456789S", Code.INVALID_ARGUMENT),
        ("-1S", Code.INVALID_ARGUMENT),
    ],
)
async def test_the_deadline_is_that_of_the_client(autojump_clock: MockClock, timeout: str, code: Code) -> None:
    """A call ends when its time is over; a time that cannot be read is named."""
    async with open_raw() as stage:
        stage.door.holds = True
        began = trio.current_time()
        stream = await stage.client.call(SCALE_UP, ONE, [("grpc-timeout", timeout)])
        assert stream.code == code
        assert trio.current_time() - began == pytest.approx(0.1 if timeout == "100m" else 0)
        assert stage.places() == 0


async def test_a_message_that_ends_in_its_middle_is_named(autojump_clock: MockClock) -> None:
    """A client that ends its side before its message is whole is told so."""
    async with open_raw() as stage:
        number = await stage.client.begin(SCALE_UP)
        stage.client.h2.send_data(number, bytes([0, 0, 0, 0, 9, 1]), end_stream=True)
        await stage.client.flush()
        stream = await stage.client.wait_end(number)
        assert stream.headers["grpc-message"] == "the message is '6 bytes of one', expected a whole one"


async def test_answers_come_through_a_tiny_window(autojump_clock: MockClock) -> None:
    """A client that takes ten bytes at a time gets all of a long answer, in order, ten at a time."""
    async with open_raw(settings={WINDOW: 10}) as stage:
        stage.door.answer = ScaleAnswer(status="success", message="m" * 500)
        stream = await stage.client.call(SCALE_UP, ONE)
        assert scaling_pb2.ScaleResponse.FromString(stream.body[5:]).message == "m" * 500
        assert max(stream.pieces) == 10
        assert stream.code == Code.OK


async def test_a_large_message_is_let_in_as_it_is_read(autojump_clock: MockClock) -> None:
    """A message of many windows arrives, and while a call is not read its client may send one window only."""
    async with open_raw() as stage:
        client = stage.client
        message = scaling_pb2.ScaleRequest(reason="x" * 300_000).SerializeToString()
        number, rest = await client.begin(SCALE_UP), struct.pack(">BI", 0, len(message)) + message
        while rest:
            size = min(len(rest), client.h2.local_flow_control_window(number), 16384)
            client.h2.send_data(number, rest[:size], end_stream=size == len(rest))
            rest = rest[size:]
            await client.flush()
            await client.wait(lambda: client.h2.local_flow_control_window(number) > 0)
        assert (await client.wait_end(number)).code == Code.OK
        assert len(stage.door.asked[0].reason) == 300_000


async def test_who_does_not_read_one_stream_holds_up_no_other(autojump_clock: MockClock) -> None:
    """News wait at the door while a client keeps that stream's window closed; another call goes on beside it."""
    async with open_raw(settings={WINDOW: 1000}, opens_windows=False) as stage:
        stage.door.news = [PipelineNews(pipeline_id="p", stage_id="s", status="running", message="x" * 600)] * 50
        request = pipeline_pb2.PipelineRequest(pipeline_id="p", metadata={"on_disconnect": "cancel"})
        number = await stage.client.begin(PIPELINE, request.SerializeToString())
        await trio.sleep(5)
        assert (stage.door.given, len(stage.client.streams[number].body)) == (2, 1000)
        assert (await stage.client.call(SCALE_UP, ONE)).code == Code.OK
        stage.client.h2.reset_stream(number)
        await stage.client.flush()
        await stage.door.left.wait()
        await trio.sleep(1)
        assert stage.door.cancelled == ["p"]
        assert stage.places() == 0


@pytest.mark.parametrize(("window", "code", "reset"), [(0, Code.CANCELLED, None), (3, None, codes().CANCEL)])
async def test_an_answer_that_is_not_taken_gives_its_place_back(
    autojump_clock: MockClock, window: int, code: Code | None, reset: int | None
) -> None:
    """A client that keeps its window closed for the one answer of a call loses the call after a while; behind a part of
    a message nothing is said any more.
    """
    async with open_raw(settings={WINDOW: window}, opens_windows=False) as stage:
        probe, asked = await stage.client.begin(CHECK, b""), await stage.client.begin(SCALE_UP, ONE)
        await trio.sleep(2)
        assert (stage.client.streams[probe].code, stage.client.streams[probe].reset) == (code, reset)
        assert (stage.client.streams[asked].code, stage.client.streams[asked].reset) == (None, None)
        assert stage.places() == 1
        await trio.sleep(60)
        assert (stage.client.streams[asked].code, stage.client.streams[asked].reset) == (code, reset)
        assert stage.places() == 0


class Stuck(trio.abc.Stream):
    """A transport whose other side reads nothing more, once `is_stuck`."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.is_stuck = False
        self.reads = 0

    async def send_all(self, data: Any) -> None:
        """Write, or wait for ever."""
        if self.is_stuck:
            await trio.sleep_forever()
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As it is."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Read, and count."""
        self.reads += 1
        data: bytes = await self.inner.receive_some(max_bytes)
        return data

    async def aclose(self) -> None:
        """Close both sides."""
        await self.inner.aclose()


async def test_who_takes_nothing_is_read_no_more_and_then_left(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """While a write does not get through nothing more is read, so that nothing piles up; after 20 s it is over."""
    far, near = trio.testing.memory_stream_pair()
    stuck = Stuck(near)
    async with open_raw(transports=(far, stuck)) as stage:
        assert (await stage.client.call(SCALE_UP, ONE)).code == Code.OK
        stuck.is_stuck = True
        reads, began = stuck.reads, trio.current_time()
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012  which of them fails is not known
            while True:
                await far.send_all(frame(6, b"8 bytes!"))
                await trio.sleep(6)
        assert stuck.reads <= reads + 1
        assert trio.current_time() - began < 30
    (fact,) = logged(caplog)
    assert (fact["peer"], fact["code"]) == ("10.0.0.7:4711", "STALLED")


async def test_a_client_that_is_silent_is_asked_and_then_left(autojump_clock: MockClock) -> None:
    """After 60 s without a word a client is asked; one that answers stays, one that does not is gone 20 s later, and
    its calls with it.
    """
    async with open_raw() as stage:
        stage.door.holds = True
        await stage.client.begin(SCALE_UP, ONE)
        await trio.sleep(500)
        assert stage.places() == 1
        stage.client.answers_pings = False
        await trio.sleep(60 + 20 + 1)
        assert stage.over.is_set()
        assert "the client went away" in stage.door.ended[0]
        assert stage.places() == 0


async def test_leaving_is_told_twice_and_loses_no_call(autojump_clock: MockClock) -> None:
    """First any stream may still come; when the client has heard that, be it seconds later, the last is named; then all
    that was begun is answered, also what came in between, and the connection closed.
    """
    async with open_raw() as stage:
        client = stage.client
        client.answers_pings = False
        stage.door.holds = True
        early = await client.begin(SCALE_UP, ONE)
        (connection,) = stage.server._connections
        connection.leave()
        await client.wait(lambda: len(client.goodbyes.heard) == 1)
        await trio.sleep(4)
        between = await client.begin(SCALE_UP, ONE)
        client.answers_pings = True
        await client.flush()
        await client.wait(lambda: len(client.goodbyes.heard) == 2)
        late = await client.begin(SCALE_UP, ONE)
        assert (await client.wait_end(late)).reset == codes().REFUSED_STREAM
        assert [(each.last_stream, each.code) for each in client.goodbyes.heard] == [(2**31 - 1, 0), (between, 0)]
        await trio.sleep(5)
        assert not stage.over.is_set()
        stage.door.release.set()
        assert [(await client.wait_end(number)).code for number in (early, between)] == [Code.OK, Code.OK]
        await stage.client.closed.wait()
        assert len(stage.door.asked) == 2


@pytest.mark.parametrize("how", ["reset", "lost", "closed"])
async def test_a_call_can_end_at_any_of_its_steps(autojump_clock: MockClock, how: str) -> None:
    """Cancelled by its client, by the loss of the connection or by the door, after any number of steps, a call leaves
    nothing: no place taken, no task, and where somebody hears it an answer.
    """
    for steps in range(40):
        async with open_raw() as stage:
            stage.door.news = [PipelineNews(pipeline_id="p", stage_id="s", status="running")] * 3
            stage.door.holds = True
            request = pipeline_pb2.PipelineRequest(pipeline_id="p", metadata={"on_disconnect": "cancel"})
            number = await stage.client.begin(PIPELINE, request.SerializeToString())
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            await _end(stage, stage.client, number, how)
            await trio.testing.wait_all_tasks_blocked()
            if how == "closed":  # what came after that, too
                await _end(stage, stage.client, number, how)
                await trio.testing.wait_all_tasks_blocked()
            assert stage.places() == 0
            begun = len(stage.door.asked)
            assert len(stage.door.ended) == begun
            assert len(stage.door.cancelled) == (begun if how != "closed" else 0)
            if how == "closed":
                assert stage.client.streams[number].code in (None, Code.UNAVAILABLE)
    assert begun == 1


async def _end(stage: Stage, client: Client, number: int, how: str) -> None:
    if how == "reset":
        client.h2.reset_stream(number, codes().CANCEL)
        await client.flush()
    elif how == "lost":
        await client.transport.aclose()
    else:
        for connection in stage.server._connections:
            connection.end_calls("the door is closed")
