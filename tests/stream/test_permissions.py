"""A user who may do no more than the documented commands gets through everything the stream does."""

from __future__ import annotations

import pytest

from ottoscaler.errors import Unavailable
from ottoscaler.parsing import RedisAddress
from ottoscaler.secret import Secret
from ottoscaler.stream.base import Accepted, Candidate, Closing, Fence, Outcome, Writing
from ottoscaler.stream.dead_letters import Letter
from ottoscaler.stream.pipelines import News
from ottoscaler.stream.retention import Retention
from tests.deploy.acl import OPTIONAL, denied, make_user
from tests.stream.backends import RedisBackend
from tests.stream.conftest import KINDS
from tests.stream.steps import PAIRS, begin, claim, registration

REAL = [kind for kind in KINDS if kind != "memory"]  # the twin has no users
pytestmark = [pytest.mark.slow_clock, pytest.mark.parametrize("kind", REAL)]


@pytest.fixture
def limited(backend: RedisBackend, kind: str) -> RedisBackend:
    """A keeper for whom the user of docs/install.md logs in."""
    make_user(backend.server, backend.keys.prefix, waits=kind == "valkey9")
    backend.address = RedisAddress(
        scheme="unix", path=backend.server.address.path, username="otto", password=Secret("secret"), db=1
    )
    backend.server.command("SELECT", 1)
    return backend


async def test_the_documented_permissions_suffice(limited: RedisBackend) -> None:
    """One of each call, in a database of its own: nothing is denied but CONFIG GET and TYPE, which are optional."""
    one = limited.open("one", Retention(results_keep=1, trim="on"))
    two = limited.open("two")
    era = await one.open_group("0", "default")
    await one.renew(60, era.id)
    await two.renew(0.001, era.id)
    up, down = await begin(limited, one), await begin(limited, one, lane="control")
    offered = await begin(limited, one, offer=True)
    await one.adopt(claim(up, "one"))
    await one.mark_victims(claim(down, "one"), 1, [Candidate(up, 1, "{}"), Candidate(offered, 1, "{}")], last=True)
    await one.record([Writing(claim(up, "one"), (Accepted(1, 1, "u", 1),), (Outcome(1, "{}", {"Stopped": "{}"}),))])
    await begin(limited, two)
    limited.add(*PAIRS)
    await two.read(1, 1)
    look = await one.tend(5, 5, expire=True, audit=True)
    assert (len(look.taken), len(look.strays)) == (2, 1)
    assert await one.register([registration(look.strays[0].id)]) == [1]
    await one.survey("")
    await one.held()
    await one.offer([claim(offered, "one")], clean=[True])
    fence = Fence("pod", "uid", 0)
    for event_id in (up, down):
        await one.close(Closing(event_id, "results", (("v", "1"),), claim(event_id, "one"), (fence,)))
    (due,) = (await one.tend(0, 0, expire=False, audit=False)).fences
    assert (due.name, due.uid) == (fence.name, fence.uid)
    await one.drop_fences([fence])
    pipeline = await begin(limited, one, lane="pipelines")
    assert await one.start_stage(claim(pipeline, "one"), 1, PAIRS, News(0, ("news",)))
    assert (await one.read_news({pipeline: 0}))[pipeline].texts == ("news",)
    await one.close(Closing(pipeline, "results", (("v", "1"),), claim(pipeline, "one")))
    await one.add_event(PAIRS, "token")
    asked = (await one.request(PAIRS, "r", "c", "token")).event_id
    await one.look([up, offered, asked, "1-1"])
    await one.read_request("r")
    await one.read_results_back("", 1)
    await one.read_ending(up)
    await one.read_entries("results", "$", 1, 0.01)
    await one.live_events()
    assert (await one.backlog()).waiting is not None
    await one.read_era()
    await one.read_progress(offered)
    bad, letter = limited.add(*PAIRS), Letter("1-1", "1-1", (("event_id", "1-1"), ("entry", '[["type", "x"]]')))
    await one.read(10, 1)
    await one.close(Closing(bad, "dlq", letter.pairs))
    await one.close(Closing(asked, "dlq", (("v", "1"),)))
    [restored] = await one.restore_dead_letters([letter], await one.dead_letter_of(bad) or "")
    assert [answer.how for answer in await one.replay_dead_letters([restored.letter_id])] == ["here"]
    await one.drop_dead_letters([restored.letter_id])
    await one.wait_durable()
    assert (await one.report()).fsync is None
    await one.leave()
    await two.leave()
    refused = denied(limited.server)
    limited.server.command("SELECT", 0)
    assert refused <= OPTIONAL


async def test_a_missing_permission_is_named(limited: RedisBackend) -> None:
    """What the user may not do is an outage that says so."""
    limited.server.command("ACL", "SETUSER", "otto", "-zadd")
    limited.server.command("SELECT", 0)
    one = limited.open("one")
    era = await one.open_group("0", "default")
    with pytest.raises(Unavailable, match="does not permit this user"):
        await one.renew(60, era.id)
