"""The HTTP door of a real `serve`: scraped, probed through a drain, ill-treated, and on a port that is taken."""

from __future__ import annotations

import signal
from functools import partial

import httpx
import trio

from ottoscaler.cli.playground import find_free_port
from tests.process.bench import Bench, wait_until
from tests.process.together import together


async def get(port: int, path: str) -> httpx.Response:
    """One GET on a connection of its own."""
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.get(f"http://127.0.0.1:{port}{path}")


async def has_status(port: int, path: str, status: int) -> bool:
    """Whether this page answers so now."""
    return (await get(port, path)).status_code == status


@together
async def test_serve_tells_what_it_does_until_it_has_ended(bench: Bench) -> None:
    """Ready when it says so, an event is counted through all stages; in a drain not ready, but live to its end."""
    port = find_free_port()
    async with (
        bench.place() as place,
        place.serve(HTTP_HOST="127.0.0.1", HTTP_PORT=str(port), DRAIN_SECONDS="60") as one,
    ):
        assert [(await get(port, path)).status_code for path in ("/startupz", "/readyz", "/livez")] == [200] * 3
        place.send(pods=2)
        await place.wait_started(2)
        running = 'ottoscaler_workers{state="running"} 2.0'
        await wait_until(lambda: says(port, running))
        one.program.process.send_signal(signal.SIGTERM)
        await wait_until(partial(has_status, port, "/readyz", 503))
        assert (await get(port, "/readyz")).text.splitlines()[1] == "drain: draining (SIGTERM)"
        assert await has_status(port, "/livez", 200)
        assert await says(port, "ottoscaler_draining 1.0")
        place.open_gate()
        assert await one.program.wait() == 0
        await place.judge()


async def says(port: int, line: str) -> bool:
    """Whether the metrics hold this line."""
    return line in (await get(port, "/metrics")).text.splitlines()


@together
async def test_ill_treatment_harms_nobody(bench: Bench) -> None:
    """With a crowd of clients that say nothing or nonsense, probes are answered and events are served."""
    port = find_free_port()
    async with bench.place() as place, place.serve(HTTP_HOST="127.0.0.1", HTTP_PORT=str(port)):
        crowd = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(60)]
        for number, client in enumerate(crowd):
            if number % 3 == 0:
                with trio.move_on_after(1):
                    try:
                        await client.send_all(b"\xff\x00nonsense \r\n\r\n" * 1000)
                    except trio.BrokenResourceError:
                        continue
        assert await has_status(port, "/livez", 200)
        place.open_gate()
        place.send(pods=2)
        await place.judge()
        for client in crowd:
            await client.aclose()


@together
async def test_a_port_that_is_taken_ends_the_start(bench: Bench) -> None:
    """Exit code 2 and one sentence that names HTTP_PORT; nothing is begun."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = str(listener.socket.getsockname()[1])
    async with listener, bench.place() as place:
        async with place.start(HTTP_HOST="127.0.0.1", HTTP_PORT=port) as one:
            assert await one.program.wait() == 2
            sentence = f"ottoscaler: HTTP_PORT is '{port}', expected a port that is free on 127.0.0.1, or 0 for none"
            await wait_until(lambda: any(line.startswith(sentence) for line in one.lines))
            assert not any("Traceback" in line for line in one.lines)
