"""Whatever bytes and frames come over a connection: it ends when its client does, and nothing of it is left."""

from __future__ import annotations

import logging
import re
import struct
from base64 import b64decode
from urllib.parse import unquote

import hpack
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from ottoscaler.rpc.door import InvalidCall
from ottoscaler.rpc.http2.codes import Code
from ottoscaler.rpc.http2.floods import Frames, Pings
from ottoscaler.rpc.http2.heads import Head, trailers_of
from tests.rpc.raw import CHECK, PIPELINE, SCALE_UP, frame, open_raw

STREAMS = st.sampled_from([0, 1, 1, 1, 3, 3, 5, 2, 2**31 - 1])
PATHS = st.sampled_from([SCALE_UP, PIPELINE, CHECK, "/grpc.health.v1.Health/Watch", "/none", ""])
REFLECT = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


def request(path: str, words: list[tuple[str, str]]) -> bytes:
    """The headers of a call, without a state that depends on others."""
    head = [(":method", "POST"), (":scheme", "http"), (":path", path), ("content-type", "application/grpc"), *words]
    return bytes(hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*each) for each in head]))


WORDS = st.lists(
    st.sampled_from(
        [("grpc-timeout", "1S"), ("grpc-timeout", "x"), ("grpc-encoding", "gzip"), ("te", "x"), ("X", "y")]
    ),
    max_size=2,
)
MESSAGES = st.builds(
    lambda flag, data, more: struct.pack(">BI", flag, len(data) + more) + data,
    st.integers(0, 2),
    st.binary(max_size=30),
    st.sampled_from([0, 0, 0, 1, 2**31]),
)
CALLS = st.builds(
    lambda path, words, flags, stream: frame(1, request(path, words), flags, stream),
    st.one_of(PATHS, st.just(REFLECT)),
    WORDS,
    st.sampled_from([4, 4, 5, 0]),
    STREAMS,
)
DATA = st.builds(lambda data, flags, stream: frame(0, data, flags, stream), MESSAGES, st.integers(0, 1), STREAMS)
ANY = st.builds(frame, st.integers(0, 11), st.binary(max_size=40), st.integers(0, 255), STREAMS)
RESETS = st.builds(lambda stream: frame(3, bytes(4), stream=stream), STREAMS)
WINDOWS = st.builds(
    lambda size, stream: frame(8, struct.pack(">I", size), stream=stream), st.sampled_from([0, 1, 2**31 - 1]), STREAMS
)
SETTINGS = st.builds(
    lambda name, value: frame(4, struct.pack(">HI", name, value)),
    st.integers(0, 9),
    st.sampled_from([0, 1, 16384, 2**31, 2**32 - 1]),
)
NOISE = st.lists(
    st.one_of(CALLS, DATA, CALLS, DATA, ANY, RESETS, WINDOWS, SETTINGS, st.binary(max_size=60)), max_size=14
)


class Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what it says."""
        self.words.append(record.getMessage())


@given(noise=NOISE, pauses=st.lists(st.booleans(), min_size=14, max_size=14), holds=st.booleans())
def test_noise_ends_in_a_clear_way(noise: list[bytes], pauses: list[bool], holds: bool) -> None:
    """Frames in any order, right or wrong, and bytes that are none: no fault of ours, no call and no place is left."""
    log, heard = logging.getLogger("ottoscaler"), Heard()
    log.addHandler(heard)
    try:
        trio.run(_make_noise, noise, pauses, holds, clock=MockClock(autojump_threshold=0))
    finally:
        log.removeHandler(heard)
    assert not {"a connection broke", "a call broke"} & set(heard.words)


async def _make_noise(noise: list[bytes], pauses: list[bool], holds: bool) -> None:
    async with open_raw(max_message_bytes=2000) as stage:
        stage.door.holds = holds
        for piece, pause in zip(noise, pauses, strict=False):
            await stage.client.send(piece)
            if pause:
                await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0.1)
        await stage.client.transport.aclose()
        with trio.fail_after(30):
            await stage.over.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert stage.places() == 0
        assert stage.connections() == 0


@given(st.text(), st.binary())
def test_words_and_details_survive_the_trailers(words: str, details: bytes) -> None:
    """Any message arrives as it was, in printable ASCII, and the details with it."""
    trailers = dict(trailers_of(Code.INTERNAL, words, details))
    found = trailers.get(b"grpc-message", b"")
    assert all(0x20 <= byte < 0x7F for byte in found)
    assert unquote(found.decode()) == words
    given_ = trailers.get(b"grpc-status-details-bin", b"")
    assert b64decode(given_ + b"=" * (-len(given_) % 4)) == details


@given(st.text(max_size=12))
def test_a_timeout_is_read_or_named(text: str) -> None:
    """Whatever a client writes for its time: seconds, or an error that says what was expected."""
    head = Head((("grpc-timeout", text),))
    if not text or re.fullmatch(r"[0-9]{1,8}[HMSmun]", text):
        assert head.timeout >= 0
    else:
        with pytest.raises(InvalidCall, match="grpc-timeout is"):
            assert head.timeout


def test_timeouts_have_their_units() -> None:
    """As gRPC counts them."""
    texts = ("2H", "2M", "2S", "2m", "2u", "2n")
    found = [Head((("grpc-timeout", text),)).timeout for text in texts]
    assert found == pytest.approx([7200, 120, 2, 2e-3, 2e-6, 2e-9])


def test_frames_and_pings_have_a_budget() -> None:
    """4,000 small frames at once and 500 a second, more with work that is done; PINGs that come too soon count."""
    frames = Frames(0.0)
    assert frames.spend(4000, 0.0)
    assert frames.spend(500, 1.0)
    frames.earn()
    assert frames.spend(10, 1.0)
    assert not frames.spend(1, 1.0)
    pings = Pings()
    assert [pings.note(now) for now in (0, 5, 10, 11, 12, 13)] == [True] * 5 + [False]
    pings.forget()
    assert pings.note(13.5)
