"""Keys of ours that become somebody else's while `serve` runs: it says so and ends, and loses nothing by it."""

from __future__ import annotations

import time

import pytest

from tests.process.bench import NOISE, Bench, wait_until
from tests.process.together import together


@together
@pytest.mark.parametrize("key", ["results", "sessions", "events"])
async def test_a_key_that_becomes_another_type_ends_the_process(bench: Bench, key: str) -> None:
    """Whatever meets the key first, the work on an event or a part of the process: exit code 2 within seconds, with a
    sentence that names what to mend. When it is mended, the next start finishes the event, which counts no failure.
    """
    async with bench.place() as place:
        async with place.serve() as serving:
            event_id = await place.start_workers(2)
            place.command("SET", f"{place.prefix}:{key}", "somebody else's")
            place.open_gate()
            begun = time.monotonic()
            assert await serving.program.wait() == 2, "\n".join(serving.lines[-10:])
            assert time.monotonic() - begun < 2 * NOISE

            def is_told() -> bool:
                said = [line["reason"] for line in (*serving.said("cannot go on"), *serving.said("cannot serve"))]
                return any(
                    "expected another REDIS_STREAM" in reason or "expected a stream" in reason for reason in said
                )

            await wait_until(is_told)  # its last words may be read behind its end
        assert not serving.said("event handling broke")
        place.command("DEL", f"{place.prefix}:{key}")
        if key != "events":  # its group is gone with it
            async with place.serve():
                await place.judge()
            assert [each["event_id"] for each in place.endings()] == [event_id]
