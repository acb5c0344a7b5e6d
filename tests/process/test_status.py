"""`ottoscaler status` of a real installation: while it runs, when nobody serves it, and as the limited Redis user."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from functools import partial
from typing import Any

import trio

from tests.deploy.acl import make_user
from tests.process.bench import Bench, Place, wait_until
from tests.process.together import together


async def status(place: Place, **settings: str) -> dict[str, Any]:
    """What the command says, as a process of its own."""
    done = await trio.to_thread.run_sync(
        partial(
            subprocess.run,
            [sys.executable, "-m", "ottoscaler", "status", "-o", "json"],
            env=place.environ | settings,
            capture_output=True,
            text=True,
            timeout=30,
        )
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


async def are_running(place: Place) -> bool:
    """Whether the API says of all pods that they run, a moment after their workers do."""
    return {pod["status"]["phase"] for pod in await place.pods()} == {"Running"}


@together
async def test_status_tells_of_an_installation_whether_or_not_it_is_served(bench: Bench) -> None:
    """Replica, events and workers are seen while they run; when the replica has left, what it handed over."""
    async with bench.own_valkey() as valkey, bench.place(valkey=valkey) as place:
        make_user(valkey, place.prefix)
        user = {"REDIS_URL": f"unix://otto:secret@{valkey.path}"}
        async with place.serve(LEASE_SECONDS="20") as one:  # which never seems to be over
            await place.start_workers(2)
            await wait_until(partial(are_running, place))
            place.send_bad()
            await one.hear("event refused")
            alive = await status(place, **user)
            one.send(signal.SIGTERM)
            await one.end()
        assert [replica["held"] for replica in alive["replicas"]] == [1]
        assert alive["replicas"][0]["lease_seconds"] > 0
        assert (alive["events"]["running"], alive["events"]["unread"]) == ({"scale_up": 1}, 0)
        assert alive["workers"] == {"Running": 2}
        assert [letter["cause"] for letter in alive["last_dead_letters"]] == ["BadPodCount"]
        place.send()
        left = await status(place, **user)
        assert (left["events"]["running"], left["events"]["waiting"]) == ({}, {"scale_up": 1})
        assert (left["events"]["unread"], left["workers"]) == (1, {"Running": 2})
        await place.finish()
