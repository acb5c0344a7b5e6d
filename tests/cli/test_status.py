"""`status`: one screen from Redis and the API, in which nothing unknown is a number."""

import json
from collections import Counter
from typing import Any

import pytest
from trio.testing import MockClock

from ottoscaler.cli import main, status
from ottoscaler.cli.status import NoInstallation, look, show_as
from ottoscaler.cli.status_screen import _cut, screen
from ottoscaler.errors import Unavailable
from ottoscaler.settings import Settings, load_settings
from ottoscaler.stream.base import Accepted, Closing, Outcome, Registration, Writing
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.stream.steps import PAIRS, claim, registration

STARTED = 1_756_659_802.0
SETTINGS = load_settings({})


async def three(settings: Settings, namespace: str) -> Counter[str]:
    """An API with three workers."""
    assert namespace == "team-a"
    return Counter({"Pending": 1, "Running": 2})


async def busy() -> MemoryServer:
    """An installation with two replicas, of which one is gone, and with some of everything."""
    server = MemoryServer(clock=lambda: 0.0, started_at=STARTED)
    one, gone = MemoryStream(server, "one-a1"), MemoryStream(server, "gone-b2")
    era = await one.open_group("0", "team-a")
    away = {"api": {"since": STARTED + 7140, "reason": "nothing was heard of the API\x1b[2J"}}
    await one.renew(3.0, era.id, json.dumps(away))
    await gone.renew(-75.0, era.id)
    ids = [server.add_entry(PAIRS) for _ in range(5)]
    await one.read(3, 0)
    await one.register([registration(ids[0]), registration(ids[1], offer=True)])
    pipeline = Registration(ids[2], "pipelines", (("type", "pipeline"),), "", 4, request_id="pipeline:build-42")
    await one.register([pipeline])
    outcome = Outcome(1, '{"outcome":"succeeded"}')
    trouble = (2, '{"cause":"Unschedulable","reason":"no room"}')
    await one.record([Writing(claim(ids[0], "one-a1"), (Accepted(1, 1, "u", 5),), (outcome,), (trouble,))])
    await gone.read(1, 0)
    await gone.register([registration(ids[3])])
    bad = server.add_entry([("type", "?")])
    await one.read(2, 0)
    letter = (("event_id", bad), ("cause", "BadType"), ("reason", "field type is '?'"), ("failed_at", "2025-08-31"))
    await one.close(Closing(bad, "dlq", letter))
    await one.close(Closing(ids[4], "dlq", (("event_id", ids[4]), ("cause", "BadPodCount"), ("reason", "\x1b[2J"))))
    server.add_entry(PAIRS)
    return server


async def test_all_is_on_one_screen() -> None:
    """Replicas with leases, events by type, workers by state, pipelines, and the last dead letters, escaped."""
    server = await busy()
    facts = await look(MemoryStream(server, "cli"), SETTINGS, three, lambda: STARTED + 7200)
    assert (
        list(screen(facts))
        == f"""\
otto:scale:events   group ottoscaler   memory://
era {facts["era"]}   namespace team-a   since 120m

REPLICA   LEASE             EVENTS
gone-b2   expired 75s ago   1
one-a1    3.0s              2

OUTAGE   OF        FOR   REASON
redis    gone-b2   75s   its lease has run out: it died, or cannot reach Redis
api      one-a1    60s   nothing was heard of the API\\x1b[2J

EVENTS         RUNNING   WAITING   ORPHANED
pipeline       1         0         0
scale_up       1         1         1
scale_down     0         0         0
not read yet   -         1         -
the oldest that waits: 0s

workers: 2 Running, 1 Pending
kept waiting by: 1 Unschedulable (ottoscaler explain CAUSE)

PIPELINE   EVENT             STAGES ENDED
build-42   1756659802000-2   0/4

dead letters: 2
ID                CAUSE         FAILED       REASON
1756659802000-1   BadPodCount   -            \\x1b[2J
1756659802000-0   BadType       2025-08-31   field type is '?'""".split("\n")
    )


async def test_what_cannot_be_read_is_unknown() -> None:
    """Without the API the rest is shown, and why there is no number of workers; the same for the stream's group."""
    server = await busy()

    async def away(settings: Settings, namespace: str) -> Counter[str]:
        raise Unavailable("https://api: connection refused")

    del server.events.groups["ottoscaler"]
    facts = await look(MemoryStream(server, "cli"), SETTINGS, away)
    assert facts["workers"] is None
    assert facts["events"]["unread"] is None
    lines = list(screen(facts))
    assert "workers: unknown, for https://api: connection refused" in lines
    assert "not read yet   -         unknown   -" in lines


async def test_nothing_going_on_is_said_in_words() -> None:
    """An installation that rests has a screen, too."""
    server = MemoryServer(clock=lambda: 0.0, started_at=STARTED)
    await MemoryStream(server, "one").open_group("0", "default")
    lines = list(screen(await look(MemoryStream(server, "cli"), SETTINGS, lambda *of: none())))
    assert {"no replica is running", "outages: none", "workers: none", "dead letters: none"} <= set(lines)
    assert not [line for line in lines if line.startswith("the oldest")]


def test_a_reason_that_was_cut_shows_it() -> None:
    """What does not fit a line ends with a sign that there is more."""
    assert _cut("x" * 80) == "x" * 80
    assert _cut("x" * 81) == "x" * 79 + "…"


async def none() -> Counter[str]:
    """An API without workers."""
    return Counter()


async def test_where_no_scaler_was_is_a_sentence() -> None:
    """A wrong stream or group is named, because that is the usual reason."""
    stream = MemoryStream(MemoryServer(), "cli")
    with pytest.raises(NoInstallation, match=r"knows no scaler of stream otto:scale:events, group ottoscaler: none"):
        await look(stream, SETTINGS, three)


async def test_a_newer_version_s_event_is_one(autojump_clock: MockClock) -> None:
    """It is counted, under a name of its own."""
    server = await busy()
    next(fields for fields in server.progress.values() if fields["owner"] == "one-a1")["v"] = "2"
    facts = await look(MemoryStream(server, "cli"), SETTINGS, three)
    assert facts["events"]["running"] == {"of a newer version": 1, "pipeline": 1}


async def test_json_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """One object per look, with numbers as numbers."""
    facts = await look(MemoryStream(await busy(), "cli"), SETTINGS, three, lambda: STARTED + 7200)
    show_as("json", is_watched=True)(facts)
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["workers"] == {"Pending": 1, "Running": 2}
    assert told["replicas"][1] == {"session": "one-a1", "lease_seconds": 3.0, "held": 2}
    assert told["outages"][1]["what"] == "api"
    assert told["outages"][1]["seconds"] == 60
    assert told["events"]["waiting"] == {"scale_up": 1}
    assert told["last_dead_letters"][1]["cause"] == "BadType"


def test_the_command_shows_what_it_can(
    server: MemoryServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any API it is one screen and exit code 0; where no scaler was, one sentence and 1."""
    monkeypatch.setenv("KUBECONFIG", "/nowhere/config")
    assert main(["status"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    server.era = status_era()
    assert main(["status"]) == 0
    assert "workers: unknown, for KUBECONFIG" in capsys.readouterr().out


def status_era() -> Any:
    """The era of an installation."""
    from ottoscaler.stream.base import Era

    return Era("e", "default", int(STARTED * 1000))


def test_a_watch_goes_on_while_redis_is_away(
    server: MemoryServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look that fails is a sentence on stderr, and the next one comes."""
    looks = iter(["fine", "away", "back", "end"])

    async def count(settings: Settings, namespace: str) -> Counter[str]:
        match next(looks):
            case "fine":
                server.lose_answer_of.add("overview")
                next(looks)
            case "end":
                raise KeyboardInterrupt
        return Counter()

    server.era = status_era()
    monkeypatch.setattr(status, "PERIOD_SECONDS", 0.0)
    monkeypatch.setattr(status, "count_workers", count)
    with pytest.raises(KeyboardInterrupt):
        main(["status", "--watch", "-o", "json"])
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    assert said.err == "ottoscaler: the answer of overview was told to get lost\n"
