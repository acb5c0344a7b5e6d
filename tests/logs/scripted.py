"""An HTTP/2 server of a few lines that does what a test says, for what no gRPC server does on demand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import trio

from ottoscaler.rpc.http2.framing import MessageReader

Codes = h2.settings.SettingCodes
HEADERS = [(":status", "200"), ("content-type", "application/grpc")]


class Peer:
    """The server's end of one connection. `got` are the messages that came, over all streams."""

    def __init__(self, transport: trio.abc.Stream, window: int = 65_535) -> None:
        self.got: list[bytes] = []
        self.events: list[h2.events.Event] = []
        self.arrived = trio.Event()
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values={Codes.INITIAL_WINDOW_SIZE: window})
        self._transport = transport
        self._extra = b""
        self.is_deaf = False
        """Takes bytes and does nothing with them."""
        self._readers: defaultdict[int, MessageReader] = defaultdict(MessageReader)

    async def run(self, judge: Callable[[Peer, h2.events.Event], None]) -> None:
        """Speak HTTP/2 until the connection ends; `judge` does what it likes with each event."""
        self.h2.initiate_connection()
        await self.flush()
        try:
            while raw := await self._transport.receive_some(65_536):
                if self.is_deaf:
                    continue
                for event in self.h2.receive_data(raw):
                    self.events.append(event)
                    if isinstance(event, h2.events.DataReceived):
                        self.got += self._readers[event.stream_id].feed(event.data)
                        self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    judge(self, event)
                    self.arrived.set()
                    self.arrived = trio.Event()
                await self.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h2.exceptions.ProtocolError):
            pass  # the client left, or speaks something else

    async def flush(self) -> None:
        """Write what h2 has to say."""
        raw, self._extra = self.h2.data_to_send() + self._extra, b""
        if raw:
            await self._transport.send_all(raw)

    def goaway(self, last_stream: int) -> None:
        """A GOAWAY after which streams go on, which h2 itself does not send."""
        payload = last_stream.to_bytes(4, "big") + bytes(4)
        self._extra += len(payload).to_bytes(3, "big") + bytes([7, 0, 0, 0, 0, 0]) + payload

    def answer(self, number: int, *messages: bytes, compressed: int = 0) -> None:
        """Messages, each in a frame of its own."""
        for message in messages:
            self.h2.send_data(number, bytes([compressed]) + len(message).to_bytes(4, "big") + message)


@asynccontextmanager
async def open_server(serve: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """A port at which every connection is served so, for the time of the block."""

    async def whole(stream: trio.SocketStream) -> None:
        async with stream:
            await serve(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, whole, 0, host="127.0.0.1"))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel(reason="the test is over")
