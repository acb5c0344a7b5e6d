"""A whole scaler as the Redis user of docs/install.md, who may do nothing else and touch no other key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.deploy.acl import OPTIONAL, denied, documented_rules, make_user
from tests.process.bench import Place, open_bench, wait_until

pytestmark = [pytest.mark.process, pytest.mark.slow_clock]


def test_the_user_has_no_wildcard() -> None:
    """Single commands and one prefix of keys: no category, no command that reads or changes the server."""
    rules = documented_rules("otto:scale")
    assert rules[:4] == ["resetkeys", "~otto:scale:*", "resetchannels", "-@all"]
    assert all(rule.startswith("+") and "@" not in rule for rule in rules[4:])
    dangerous = {"+keys", "+scan", "+flushall", "+flushdb", "+config", "+acl", "+shutdown", "+debug", "+monitor"}
    assert not dangerous & set(rules)
    assert len(rules) == len(set(rules))


async def test_a_scaler_needs_no_more(tmp_path: Path) -> None:
    """Events, a bad entry, a scale_down, a kill and a takeover, and the commands for people: nothing was denied."""
    async with open_bench(tmp_path) as bench, bench.own_valkey() as valkey, bench.place(valkey=valkey) as place:
        make_user(valkey, place.prefix)
        place.environ["REDIS_URL"] = f"unix://otto:secret@{valkey.path}"
        async with place.serve() as first:
            await place.start_workers(3)
            place.send_bad()
            await first.kill()
        async with place.serve() as second:
            await second.hear("adopted")
            place.send("scale_down", 1)
            await place.wait_results(1)
            place.open_gate()
            await wait_until(lambda: place.endings("dlq"))
            await trio.to_thread.run_sync(people, place)
            await place.wait_results(3)
            await wait_until(lambda: place.pending() == 0)
        assert denied(valkey) <= OPTIONAL
        lines = "\n".join(first.lines + second.lines)
        assert "does not permit" not in lines


def people(place: Place) -> None:
    """What people type: each command ends well."""
    letters = place.endings("dlq")
    commands = (
        ("check",),
        ("send", "scale_up", "--pods", "1", "--wait"),
        ("dlq", "replay", letters[0]["event_id"]),
    )
    for words in commands:
        done = subprocess.run(
            [sys.executable, "-m", "ottoscaler", *words], env=place.environ, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
