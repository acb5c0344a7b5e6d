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
TRIES = 5
"""How often in a row a page may be late: noise passes, and what waits for a silent Redis or API waits each time."""
EARLY_SECONDS = 0.5
"""So soon nothing has noticed the silence."""
SERVE = """
from ottoscaler.kube import watch
watch.WATCH_SECONDS, watch.SILENCE_SECONDS, watch.STALE_SECONDS = 2, 0.5, 3.5
from ottoscaler.cli import main
raise SystemExit(main(["serve"]))
"""
"""`serve` whose watches last 2 s instead of 30, so that silence shows in seconds."""


async def answer_in_time(port: int, path: str, seconds: float = PROMISED_SECONDS) -> int:
    """The status of a page, which must come within the promised second."""
    took = []
    for _ in range(TRIES):
        begun = time.monotonic()
        status = (await get(port, path)).status_code
        took.append(time.monotonic() - begun)
        if took[-1] < seconds + NOISE_SECONDS:
            return status
    raise AssertionError(f"{path} took {took} s")


async def problems(port: int) -> set[str]:
    """What /readyz says is not well; a busy machine may be seen as silent for a moment."""
    lines = (await get(port, "/readyz")).text.splitlines()
    return {line.split(":")[0] for line in lines if not line.endswith(": ok")}


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
                begun, early = time.monotonic(), list[int]()

                async def has_turned() -> bool:
                    assert await answer_in_time(port, "/livez") == 200
                    seen.append(await answer_in_time(port, "/readyz"))
                    if time.monotonic() - begun < EARLY_SECONDS:
                        early.append(seen[-1])
                    return seen[-1] == 503 and await problems(port) <= set(who.split(" and "))

                await wait_until(has_turned, 30)
                assert set(early) <= {200}
                assert await answer_in_time(port, "/livez") == 200
                assert await answer_in_time(port, "/metrics", 2 * PROMISED_SECONDS) == 200
            await wait_until(partial(has_status, port, "/readyz", 200), 40)
            assert await answer_in_time(port, "/livez") == 200
