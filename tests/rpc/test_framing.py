"""Bytes as frames and as messages, however the network cuts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottoscaler.rpc.http2.framing import FrameJoiner, MessageReader, prefixed


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One HTTP/2 frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def frames_of(raw: bytes) -> list[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload of each frame."""
    found, at = [], 0
    while at < len(raw):
        end = at + 9 + int.from_bytes(raw[at : at + 3], "big")
        found.append((raw[at + 3], raw[at + 4], int.from_bytes(raw[at + 5 : at + 9], "big"), raw[at + 9 : end]))
        at = end
    return found


def pieces(raw: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes, cut at these places."""
    ends = sorted({cut % (len(raw) + 1) for cut in cuts} | {len(raw)})
    return [raw[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


FRAMES = st.lists(
    st.tuples(st.sampled_from([0, 0, 0, 1, 3, 6, 8]), st.sampled_from([0, 0, 0, 1]), st.sampled_from([1, 3]))
    .flatmap(lambda head: st.tuples(*map(st.just, head), st.binary(max_size=40)))
    .map(lambda one: (one[0], one[1], one[2], one[3])),
    max_size=30,
)


@given(FRAMES, st.lists(st.integers(0, 10_000), max_size=8))
def test_joined_frames_say_the_same(frames: list[tuple[int, int, int, bytes]], cuts: list[int]) -> None:
    """Whatever was cut where: the frames are those that came, but that neighbouring plain DATA is one, and none is too
    large.
    """
    joiner = FrameJoiner(64)
    raw = b"".join(frame(*one) for one in frames)
    seen = [one for piece in pieces(raw, cuts) for one in frames_of(joiner.feed(piece))]
    assert all(len(payload) <= 64 for *_, payload in seen)

    def told(of: list[tuple[int, int, int, bytes]]) -> list[tuple[int, int, int, bytes]]:
        merged: list[tuple[int, int, int, bytes]] = []
        for kind, flags, stream, payload in of:
            if merged and (kind, flags, stream) == (0, 0, merged[-1][2]) and merged[-1][:2] == (0, 0):
                merged[-1] = (0, 0, stream, merged[-1][3] + payload)
            else:
                merged.append((kind, flags, stream, payload))
        return merged

    assert told(seen) == told(frames)


def test_many_small_answers_are_few_frames() -> None:
    """A thousand answers in frames of their own reach h2 as one."""
    raw = frame(0, 0, 1, prefixed(b"\x18\x01")) * 1000
    assert len(frames_of(FrameJoiner().feed(raw))) == 1


def test_goaway_is_taken_out() -> None:
    """What the server says in it is kept, and h2 does not hold the connection to be over."""
    joiner = FrameJoiner()
    raw = frame(7, 0, 0, (5).to_bytes(4, "big") + (11).to_bytes(4, "big") + b"too_many_pings")
    assert joiner.feed(raw[:12]) + joiner.feed(raw[12:]) == b""
    assert joiner.goaway == (5, 11, "too_many_pings")


@pytest.mark.parametrize(
    "garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x46" * 9, b"\xff" * 99]
)
def test_what_is_no_http2(garbage: bytes) -> None:
    """A server that speaks something else is not waited for: its first bytes are an error."""
    with pytest.raises(ValueError, match="does not speak HTTP/2"):
        FrameJoiner().feed(garbage)


@given(st.lists(st.binary(max_size=60), max_size=20), st.lists(st.integers(0, 10_000), max_size=8))
def test_messages_come_out_as_they_went_in(messages: list[bytes], cuts: list[int]) -> None:
    """Any cutting gives the same messages."""
    reader = MessageReader()
    raw = b"".join(map(prefixed, messages))
    assert [one for piece in pieces(raw, cuts) for one in reader.feed(piece)] == messages


@pytest.mark.parametrize(
    ("raw", "words"), [(b"\x01\x00\x00\x00\x01x", "compressed"), (b"\x00\x00\x00\x10\x01", "4097 bytes")]
)
def test_messages_that_nobody_can_read(raw: bytes, words: str) -> None:
    """A compressed message and one above the limit are errors that say so."""
    with pytest.raises(ValueError, match=words):
        MessageReader(4096).feed(raw)
