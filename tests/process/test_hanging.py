"""Probes while Redis or the API accept connections and say nothing: answered at once, and by what each is for."""

from __future__ import annotations

import sys
import time
from functools import partial

import pytest

from ottoscaler.cli.playground import SERVE_READY, find_free_port
from ottoscaler.cli.programs import open_program
from tests.process.bench import Bench, wait_until
from tests.process.test_drain import SILENT, frozen, place_of_its_own
from tests.process.test_http import get, has_status
from tests.process.together import together

PROMISED_SECONDS = 1.0
NOISE_SECONDS = 1.0
"""Other tests run beside this one."""
SERVE = """
from ottoscaler.kube import watch
watch.WATCH_SECONDS, watch.SILENCE_SECONDS, watch.STALE_SECONDS = 2, 0.5, 3.5
from ottoscaler.cli import main
raise SystemExit(main(["serve"]))
"""
"""`serve` whose watches last 2 s instead of 30, so that silence shows in seconds."""


async def answer_in_time(port: int, path: str) -> int:
    """The status of a page, which must come within the promised second."""
    begun = time.monotonic()
    status = (await get(port, path)).status_code
    assert time.monotonic() - begun < PROMISED_SECONDS + NOISE_SECONDS, path
    return status


@together
@pytest.mark.parametrize("who", SILENT)
async def test_probes_while_others_are_silent(bench: Bench, who: str) -> None:
    """/readyz answers within a second and turns to 503, /livez stays at 200, and the metrics come, too; all is well
    again when the others speak again.
    """
    port = find_free_port()
    async with place_of_its_own(bench, who) as place:
        environ = place.environ | {"HTTP_HOST": "127.0.0.1", "HTTP_PORT": str(port)}
        command = (sys.executable, "-c", SERVE)
        async with open_program(bench.nursery, "serve", command, ready=SERVE_READY, environ=environ):
            await wait_until(partial(has_status, port, "/readyz", 200))
            async with frozen(who, place.valkey, place.cluster):
                seen: list[int] = []

                async def has_turned() -> bool:
                    assert await answer_in_time(port, "/livez") == 200
                    seen.append(await answer_in_time(port, "/readyz"))
                    return seen[-1] == 503

                await wait_until(has_turned, 15)
                assert seen[0] == 200
                problems = [
                    line for line in (await get(port, "/readyz")).text.splitlines() if not line.endswith(": ok")
                ]
                assert {line.split(":")[0] for line in problems} <= set(who.split(" and "))
                assert await answer_in_time(port, "/livez") == 200
                begun = time.monotonic()
                assert await has_status(port, "/metrics", 200)
                assert time.monotonic() - begun < 2 * PROMISED_SECONDS + NOISE_SECONDS
            await wait_until(partial(has_status, port, "/readyz", 200), 20)
            assert await answer_in_time(port, "/livez") == 200
