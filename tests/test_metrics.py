"""Metrics: their names and labels, what they count of a scaler's life, and that the unknown is absent."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from trio.testing import MockClock

from ottoscaler.cli.metrics_table import PATH, metrics_page
from ottoscaler.gauges import exposition, looked_up_metrics
from ottoscaler.metrics import REGISTRY, STAGES, Meaning, StageClock, count_ending, kept_metrics, observe_request
from ottoscaler.refusals import REFUSALS
from ottoscaler.stream.backlog import Backlog
from ottoscaler.stream.memory import MemoryServer
from tests.promlint import lint
from tests.spine.scaler import Scaler
from tests.spine.world import Plan, World

ALL = [*kept_metrics(), *looked_up_metrics()]
BASE_UNITS = {"seconds", "bytes"}
OTHER_UNITS = re.compile(r"_(milliseconds|ms|minutes|hours|days|kilobytes|kb|mib|megabytes|percent|s|ns|us)(_|$)")
WANTED = {
    "ottoscaler_events_total": ("type", "outcome"),
    "ottoscaler_workers_total": ("outcome", "cause"),
    "ottoscaler_workers": ("state",),
    "ottoscaler_dead_letters_total": ("cause",),
    "ottoscaler_retries_total": ("cause",),
    "ottoscaler_polls_total": ("outcome",),
    "ottoscaler_api_request_seconds": ("verb", "code"),
    "ottoscaler_stage_seconds": ("stage",),
    "ottoscaler_causes_named_total": ("cause",),
}
Values = Callable[..., float]


@pytest.fixture
def grown() -> Values:
    """How much a sample has grown since the test began: its name, and its labels."""
    before = {(each.name, tuple(sorted(each.labels.items()))): each.value for each in samples()}

    def growth(name: str, **labels: str) -> float:
        key = tuple(sorted(labels.items()))
        return (REGISTRY.get_sample_value(name, labels) or 0.0) - before.get((name, key), 0.0)

    return growth


def samples(text: bytes | None = None) -> list[Sample]:
    """All samples of an exposition; without one, of what is kept."""
    families = REGISTRY.collect() if text is None else text_string_to_metric_families(text.decode())
    return [sample for family in families for sample in family.samples]


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_names_keep_the_rules_of_prometheus(metric: Meaning) -> None:
    """What promtool looks at: characters, `_total` for counters alone, base units, no type in the name, help."""
    name = metric.name
    assert re.fullmatch(r"ottoscaler_[a-z][a-z0-9_]*[a-z0-9]", name)
    assert name.endswith("_total") == (metric.kind == "counter")
    assert not name.endswith(("_count", "_sum", "_bucket", "_created"))
    assert not OTHER_UNITS.search(name)
    assert not {"counter", "gauge", "histogram", "summary"} & set(name.split("_"))
    assert metric.kind != "histogram" or name.rsplit("_", 1)[1] in BASE_UNITS
    assert metric.meaning.endswith(".")
    assert all(re.fullmatch(r"[a-z_]+", label) and label not in ("le", "quantile") for label in metric.labels)


def test_names_that_others_rely_on_are_there() -> None:
    """Name and labels of the metrics that dashboards and alerts are built on."""
    labels = {metric.name: metric.labels for metric in ALL}
    assert {name: labels.get(name) for name in WANTED} == WANTED
    assert len(labels) == len(ALL)


def test_the_table_is_what_the_code_says() -> None:
    """docs/metrics.md is made by `python -m ottoscaler.cli.metrics_table`."""
    assert Path(PATH).read_text() == metrics_page()


@given(st.lists(st.tuples(st.sampled_from(STAGES[1:]), st.floats(0, 1e6)), max_size=20))
def test_gaps_between_stages_sum_up(steps: list[tuple[str, float]]) -> None:
    """Whatever stages come, in any order, by clocks that disagree: the gaps are the way from first to last."""
    before = gaps_together()
    clock, reached, end = StageClock("added", 100.0), 0, 100.0
    for stage, at in steps:
        clock.reach(stage, at)
        if STAGES.index(stage) > reached:
            reached, end = STAGES.index(stage), max(end, at)
    assert gaps_together() - before == pytest.approx(end - 100.0, abs=1e-3)


def gaps_together() -> float:
    """All time spent in gaps between stages."""
    (family,) = (family for family in REGISTRY.collect() if family.name == "ottoscaler_stage_seconds")
    return sum(sample.value for sample in family.samples if sample.name.endswith("_sum"))


def gap_sum(stage: str) -> float:
    """All time spent in the gaps that this stage ends."""
    return REGISTRY.get_sample_value("ottoscaler_stage_seconds_sum", {"stage": stage}) or 0.0


def test_a_clock_of_another_owner_times_nothing_before_it_is_known() -> None:
    """What is taken over in the middle begins at the first stage that is heard of."""
    before = [gap_sum(stage) for stage in STAGES]
    clock = StageClock()
    clock.reach("running", 50.0)
    assert [gap_sum(stage) for stage in STAGES] == before
    clock.skip("ended", 60.0)
    clock.reach("recorded", 63.0)
    assert gap_sum("recorded") - before[STAGES.index("recorded")] == pytest.approx(3.0)


def test_alerts_see_the_first_of_its_kind() -> None:
    """An increase needs a 0 before it: dead letters are there with every cause, and crashes with every running part."""
    for cause in REFUSALS:
        assert REGISTRY.get_sample_value("ottoscaler_dead_letters_total", {"cause": cause}) is not None


def test_refused_events_count_by_cause_and_by_a_bounded_type(grown: Values) -> None:
    """The type of a dead letter is one of ours or `other`, whatever was sent."""
    for entry in ('[["type", "scale_up"]]', '[["type", "x1"]]', "[]"):
        count_ending("dlq", (("cause", "BadPodCount"), ("entry", entry)))
    assert grown("ottoscaler_dead_letters_total", cause="BadPodCount") == 3
    assert grown("ottoscaler_events_total", type="scale_up", outcome="dead_letter") == 1
    assert grown("ottoscaler_events_total", type="other", outcome="dead_letter") == 2


def test_a_watch_is_timed_only_where_it_fails(grown: Values) -> None:
    """A watch lasts as long as it lasts; a request without an answer has the code `none`."""
    name = "ottoscaler_api_request_seconds_count"
    observe_request("watch", 200, 30.0)
    observe_request("watch", 410, 0.1)
    observe_request("follow", 200, 30.0)
    observe_request("log", 200, 0.1)
    observe_request("create", None, 5.0)
    assert grown(name, verb="watch", code="200") == 0
    assert grown(name, verb="watch", code="410") == 1
    assert grown(name, verb="follow", code="200") == 0
    assert grown(name, verb="log", code="200") == 1
    assert grown(name, verb="create", code="none") == 1


async def play(world: World, server: MemoryServer, look: Callable[[Scaler], object] = id) -> None:
    """Two events on a scaler of its own, one of them with a worker that fails; `look` when they have ended."""
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        scaler = Scaler(world, server, "one", cleanup_delay_seconds="0")
        for pods in ("1", "2"):
            server.add_entry([("type", "scale_up"), ("pod_count", pods)])
        server.add_entry([("type", "scale_up"), ("pod_count", "none")])
        async with trio.open_nursery() as life:
            life.start_soon(scaler.run)
            while len(server.results) < 2:  # noqa: ASYNC110 - the twin of Redis tells nobody when it has grown
                await trio.sleep(0.5)
            look(scaler)
            scaler.drain.request("the test is over")
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_life_is_counted(autojump_clock: MockClock, grown: Values) -> None:
    """Events, workers, causes and each stage of two events and three workers; no label tells of an event."""
    server = MemoryServer(started_at=1_760_000_000.0)
    await play(World(plan_of), server)
    assert grown("ottoscaler_events_total", type="scale_up", outcome="succeeded") == 1
    assert grown("ottoscaler_events_total", type="scale_up", outcome="partial") == 1
    assert grown("ottoscaler_dead_letters_total", cause="BadPodCount") == 1
    assert grown("ottoscaler_workers_total", outcome="succeeded", cause="") == 2
    assert grown("ottoscaler_workers_total", outcome="failed", cause="ExitCode") == 1
    assert grown("ottoscaler_causes_named_total", cause="ExitCode") == 1
    assert grown("ottoscaler_polls_total", outcome="entries") >= 1
    per_stage = {stage: grown("ottoscaler_stage_seconds_count", stage=stage) for stage in STAGES[1:]}
    of_workers = dict.fromkeys(("accepted", "scheduled", "running", "ended", "recorded", "deleted"), 3)
    assert per_stage == {"read": 2, "started": 2, **of_workers, "closed": 2}
    stamps = [str(entry_id[0])[:9] for entry_id in server.events.entries]
    assert not any(stamp in value for stamp in stamps for each in samples() for value in each.labels.values())


def plan_of(labels: Mapping[str, str]) -> Plan:
    """The second worker of an event fails."""
    return Plan(exit_code=3 if labels["ottoscaler/index"] == "2" else 0)


async def test_the_stages_of_one_event_sum_up(autojump_clock: MockClock) -> None:
    """From added to closed nothing is left out and nothing counted twice: one event with one worker."""
    server = MemoryServer(started_at=1_760_000_000.0)
    before, closed_at = sum(map(gap_sum, STAGES)), 0.0
    async with trio.open_nursery() as nursery:
        world = World()
        await nursery.start(world.run)
        nursery.start_soon(Scaler(world, server, "one").run)
        await trio.sleep(5)
        added_at = server.now() / 1000
        server.add_entry([("type", "scale_up"), ("pod_count", "1")])
        while not server.results:
            closed_at = server.now() / 1000
            await trio.sleep(0.01)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert sum(map(gap_sum, STAGES)) - before == pytest.approx(closed_at - added_at, abs=0.1)


BAD = {
    "a 1": "a: no help text",
    "# HELP a_total x\n# TYPE a_total gauge\na_total 1": 'a_total: non-counter metrics should not have "_total" suffix',
    "# HELP a x\n# TYPE a counter\na 1": 'a: counter metrics should have "_total" suffix',
    "# HELP a_milliseconds x\n# TYPE a_milliseconds gauge": 'a_milliseconds: use base unit "seconds" instead of '
    '"milliseconds"',
    "# HELP a_minutes x\n# TYPE a_minutes gauge": 'a_minutes: use base unit "seconds" instead of "minutes"',
    "# HELP a_count x\n# TYPE a_count gauge": 'a_count: metrics of type gauge should not have "_count" suffix',
    '# HELP a x\n# TYPE a gauge\na{le="1"} 1': 'a: non-histogram metrics should not have "le" label',
    "# HELP a_gauge x\n# TYPE a_gauge gauge": "a_gauge: metric name should not include type 'gauge'",
    "# HELP a:b x\n# TYPE a:b gauge": "a:b: metric names should not contain ':'",
    "# HELP aB x\n# TYPE aB gauge": "aB: metric names should be written in 'snake_case' not 'camelCase'",
    '# HELP a x\n# TYPE a gauge\na{bC="1"} 1': "a: label names should be written in 'snake_case' not 'camelCase'",
    "# HELP a_ms x\n# TYPE a_ms gauge": "a_ms: metric names should not contain abbreviated units",
    '# HELP a x\n# TYPE a gauge\na{b="1"} 1\na{b="1"} 2': "a: metric not unique",
}


@pytest.mark.parametrize("exposition", BAD)
def test_the_rules_find_what_promtool_finds(exposition: str) -> None:
    """Each rule of `promtool check metrics` names the metric that breaks it, and no other rule does."""
    assert lint(exposition) == [BAD[exposition]]


async def test_what_is_exposed_keeps_the_rules_of_promtool(autojump_clock: MockClock) -> None:
    """After a life with a failure, a refusal and a backlog: no rule of `promtool check metrics` is broken, neither by
    ours nor by promtool itself where it is installed.
    """
    texts: list[str] = []

    def look(scaler: Scaler) -> None:
        texts.append(exposition(scaler.rings.vitals, Backlog(7, 3, 1.5)).decode())

    await play(World(plan_of), MemoryServer(started_at=1_760_000_000.0), look)
    assert len(texts[0].splitlines()) > 200
    assert lint(texts[0]) == []
    if promtool := shutil.which("promtool"):
        done = subprocess.run([promtool, "check", "metrics"], input=texts[0], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


async def test_the_unknown_is_absent(autojump_clock: MockClock) -> None:
    """Without an answer of Redis there is no figure of what waits, rather than a 0; everything else is there."""
    seen: dict[str, list[str]] = {}

    def look(scaler: Scaler) -> None:
        for kind, backlog in {"known": Backlog(7, 3, 1.5), "lost": Backlog(7, None, None), "silent": None}.items():
            seen[kind] = [each.name for each in samples(exposition(scaler.rings.vitals, backlog))]

    await play(World(), MemoryServer(started_at=1_760_000_000.0), look)
    waiting = {"ottoscaler_events_waiting", "ottoscaler_oldest_waiting_seconds"}
    assert waiting | {"ottoscaler_stream_entries"} <= set(seen["known"])
    assert set(seen["known"]) - set(seen["lost"]) == waiting
    assert set(seen["known"]) - set(seen["silent"]) == waiting | {"ottoscaler_stream_entries"}
    without_scaler = {each.name for each in samples(exposition(None, None))}
    assert {"ottoscaler_build_info", "ottoscaler_polls_total"} <= without_scaler
    assert "ottoscaler_leases_held" not in without_scaler
