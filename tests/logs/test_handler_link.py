"""The real calls to a real otto-handler, over gRPC."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
import trustme

from ottoscaler.backoff import Backoff
from ottoscaler.cli.playground import find_free_port
from ottoscaler.errors import Unavailable
from ottoscaler.logs.backlog import Backlog, Room
from ottoscaler.logs.lane import Lane, Sender
from ottoscaler.logs.lines import LineReader, LogLine
from ottoscaler.logs.mark import Mark
from ottoscaler.logs.messages import Who, Wording
from ottoscaler.logs.outbox import Outbox
from ottoscaler.otto_handler.behaviour import Behaviour, Control
from ottoscaler.otto_handler.server import open_otto_handler
from ottoscaler.otto_handler.store import Told
from ottoscaler.outcomes import WorkerOutcome
from ottoscaler.rpc.handler_link import Handler, open_handler
from ottoscaler.secret import Secret

pytestmark = pytest.mark.slow_clock
WHO = Who("otto-agent-1-5-0", "task-1", "5-0", 1, 1, "otto")


class Heard:
    """What a handler took."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def __call__(self, rpc: str, record: dict[str, Any]) -> None:
        """Keep it."""
        self.records.append({"rpc": rpc, **record})

    @property
    def numbers(self) -> list[int]:
        """The numbers of the lines, as they came."""
        return [int(one["metadata"]["line"]) for one in self.records if one["rpc"] == "ForwardWorkerLogs"]


@asynccontextmanager
async def forwarding(handler: Handler, lines: int) -> AsyncIterator[Outbox]:
    """So many lines on their way over one stream."""
    lane = Lane(handler.open_log_stream, trio.lowlevel.checkpoint, Backoff(0.05, 0.2))
    backlog = Backlog(Room(), lambda: None)
    outbox = Outbox(backlog, Mark())
    await backlog.put([LogLine("2026-11-20T20:41:21Z", b"line %d" % at, 0, at) for at in range(1, lines + 1)])
    lane.add(Sender(outbox, backlog, Wording(WHO).encode, lambda: None))
    with trio.fail_after(45):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lane.run)
            yield outbox
            while outbox.mark.line < lines:  # noqa: ASYNC110 - there is nothing that says so
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel(reason="all lines are done with")


async def test_the_longest_line_of_bytes_is_a_message_that_servers_take() -> None:
    """Each byte that is no text is escaped by four: even so it is below what gRPC servers take by default, 4 MiB."""
    heard, reader = Heard(), LineReader()
    lines = reader.feed(b"2026-11-20T20:41:21.140944177Z " + b"\xff" * (1 << 20) + b"\n")
    with open_otto_handler(Told(heard)) as served:
        async with open_handler(f"127.0.0.1:{served.port}", tls=False, ca=None, token=None) as handler:
            with trio.fail_after(10):
                async with handler.open_log_stream(lambda: None) as stream:
                    stream.send([Wording(WHO).encode(line) for line in lines])
                    answers = 0
                    while answers < len(lines):
                        answers += len(stream.take())
                        await trio.sleep(0.01)
    assert "".join(one["message"] for one in heard.records) == "\\xff" * (1 << 20)


async def test_lines_and_answers_cross_the_wire() -> None:
    """Every line arrives in order; RETRY brings its line again, DROP does not."""
    heard = Heard()
    with open_otto_handler(Told(heard), control=Control(Behaviour(retry=10, drop=7))) as served:
        async with open_handler(f"127.0.0.1:{served.port}", tls=False, ca=None, token=None) as handler:
            async with forwarding(handler, 300):
                pass
    taken = [one for one in heard.records if one["answer"] != "RETRY"]
    assert sorted(int(one["metadata"]["line"]) for one in taken) == list(range(1, 301))
    assert len(heard.numbers) > 300
    assert (heard.records[0]["worker_id"], heard.records[0]["message"]) == (WHO.name, "line 1")


async def test_a_handler_that_restarts_gets_the_rest() -> None:
    """When the handler ends and comes back on its port, lines go on, and only those without an answer come twice."""
    heard, port = Heard(), find_free_port()
    with ExitStack() as last:
        async with (
            open_handler(f"127.0.0.1:{port}", tls=False, ca=None, token=None) as handler,
            forwarding(handler, 2000),
        ):
            await trio.sleep(0.2)
            for _ in range(2):
                with open_otto_handler(Told(heard), port=port, control=Control(Behaviour(cut_after=300))):
                    await trio.sleep(0.5)
            last.enter_context(open_otto_handler(Told(heard), port=port))
    assert sorted(set(heard.numbers)) == list(range(1, 2001))


async def test_tls_and_token() -> None:
    """With TLS the handler's certificate is checked and the token is shown; with wrong ones nobody is reached."""
    authority, stranger = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("localhost")
    pems = (
        certificate.private_key_pem.bytes(),
        b"".join(part.bytes() for part in certificate.cert_chain_pems),
    )
    heard = Heard()
    told = Wording(WHO).ended(WorkerOutcome(WHO.name, 1, 1, "succeeded"), 1.0)
    ca = authority.cert_pem.bytes()
    with open_otto_handler(Told(heard), certificate=pems, token="secret") as served:
        address = f"localhost:{served.port}"
        async with open_handler(address, tls=True, ca=ca, token=Secret("secret")) as handler:
            async with forwarding(handler, 20):
                pass
            assert await handler.notify(told)
        for wrong_ca, token in ((ca, "other"), (stranger.cert_pem.bytes(), "secret")):
            async with open_handler(address, tls=True, ca=wrong_ca, token=Secret(token)) as handler:
                with pytest.raises(Unavailable):
                    await handler.notify(told, 2.0)
    assert heard.numbers == list(range(1, 21))
    assert heard.records[-1]["status"] == "COMPLETED"


async def test_a_state_that_is_answered_error_is_not_heard() -> None:
    """ERROR says that the handler could not keep it; nobody there is Unavailable."""
    told = Wording(WHO).created(None, 1.0)
    with open_otto_handler(Told(Heard()), control=Control(Behaviour(error=2))) as served:
        async with open_handler(f"127.0.0.1:{served.port}", tls=False, ca=None, token=None) as handler:
            assert [await handler.notify(told) for _ in range(4)] == [True, False, True, False]
    async with open_handler(f"127.0.0.1:{find_free_port()}", tls=False, ca=None, token=None) as handler:
        with pytest.raises(Unavailable, match="otto-handler at 127"):
            await handler.notify(told, 2.0)


async def test_a_cancel_ends_a_stream_at_once() -> None:
    """A handler that stalls keeps nobody: leaving the stream takes no time."""
    with open_otto_handler(Told(Heard()), control=Control(Behaviour(stall=True))) as served:
        async with open_handler(f"127.0.0.1:{served.port}", tls=False, ca=None, token=None) as handler:
            begun = trio.current_time()
            with trio.move_on_after(0.3):
                async with forwarding(handler, 50):
                    await trio.sleep_forever()
            assert trio.current_time() - begun < 10
        served.control.base = Behaviour()


def test_grpcio_is_not_needed_to_forward() -> None:
    """A scaler that forwards logs and serves no gRPC does without its library, and the 11 MB that it takes."""
    program = "import sys, ottoscaler.rpc.handler_link, ottoscaler.logs.forwarding; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
