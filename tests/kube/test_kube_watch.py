"""The list and watch against a scripted API, in virtual time: whatever happens, the fleet ends as the server is."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from ottoscaler.errors import Expired, OttoscalerError, Refused, Unavailable
from ottoscaler.fleet import Fleet
from ottoscaler.kube.client import WatchEvent
from ottoscaler.kube.watch import watch_fleet

Pod = dict[str, Any]


class ScriptedApi:
    """A server of pods with a history, and every way to lose touch with it."""

    def __init__(self) -> None:
        self.pods: dict[str, Pod] = {}
        self.version = 10
        self.compacted = 0
        self.history: list[tuple[int, str, Pod]] = []
        self.changed = trio.Event()
        self.lists = 0
        self.watches: list[int] = []
        self.away = False
        self.is_silent = False
        self.refusal: OttoscalerError | None = None
        self.instant_end = False
        self._cuts = 0

    def write(self, kind: str, name: str, phase: str = "Pending") -> None:
        """One change of one pod."""
        self.version += 1
        known = self.pods.get(name)
        uid = known["metadata"]["uid"] if known else f"{name}-{self.version}"
        pod = {
            "metadata": {"name": name, "uid": uid, "resourceVersion": str(self.version)},
            "status": {"phase": phase},
        }
        self._note(kind, pod)
        if kind == "DELETED":
            self.pods.pop(name, None)
        else:
            self.pods[name] = pod

    def bookmark(self) -> None:
        """Tell all watches the version."""
        self._note("BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}})

    def repeat(self, count: int) -> None:
        """Say the last events once more, in the wrong order."""
        for _, kind, pod in reversed(self.history[-count:]):
            self._note(kind, pod)

    def compact(self) -> None:
        """Forget the history."""
        self.compacted = self.version

    def cut(self) -> None:
        """Break all open watches."""
        self._cuts += 1
        self._wake()

    def restore(self) -> None:
        """Go back to an older state, as a restored etcd does: lower versions, other pods."""
        self.version = max(1, self.version - 7)
        for name in list(self.pods)[::2]:
            del self.pods[name]
        for pod in self.pods.values():
            pod["metadata"] = {**pod["metadata"], "resourceVersion": str(self.version)}
        self.history.clear()

    def _note(self, kind: str, pod: Pod) -> None:
        self.history.append((self.version, kind, pod))
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def list_pods(self, namespace: str, selector: str) -> tuple[list[Pod], int]:
        """As the API does."""
        self.lists += 1
        await trio.sleep(0.01)
        self._answer()
        return list(self.pods.values()), self.version

    async def watch_pods(
        self, namespace: str, selector: str, resource_version: int, timeout_seconds: int = 30
    ) -> AsyncGenerator[WatchEvent, None]:
        """As the API does, a version from the future included."""
        self.watches.append(resource_version)
        await trio.sleep(0.01)
        self._answer()
        if resource_version < self.compacted:
            raise Expired("too old resource version")
        cuts, ends = self._cuts, trio.current_time() + timeout_seconds
        position = 0 if resource_version <= self.version else len(self.history)
        while not self.instant_end:
            if self._cuts > cuts or self.away:
                raise Unavailable("the watch broke off")
            while position < len(self.history):
                version, kind, pod = self.history[position]
                position += 1
                if version > resource_version and not self.is_silent:
                    yield WatchEvent(kind, pod)
            with trio.move_on_at(math.inf if self.is_silent else ends) as scope:
                await self.changed.wait()
            if scope.cancelled_caught:
                return
            position = min(position, len(self.history))

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("connection refused", address="https://api")
        if self.refusal is not None:
            raise self.refusal


def truth(api: ScriptedApi) -> dict[str, tuple[str, int]]:
    """Name → uid and version of every pod there is."""
    return {n: (p["metadata"]["uid"], int(p["metadata"]["resourceVersion"])) for n, p in api.pods.items()}


def known(fleet: Fleet) -> dict[str, tuple[str, int]]:
    """Name → uid and version of every pod that the fleet knows."""
    return {name: (record.uid, record.resource_version) for name, record in fleet.records.items()}


@asynccontextmanager
async def watching(api: ScriptedApi, outages: list[bool] | None = None) -> AsyncIterator[Fleet]:
    """A fleet that is kept up to date from the API; its first list was seen."""
    fleet = Fleet()
    note = (lambda error: outages.append(error is not None)) if outages is not None else None
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(watch_fleet, api, fleet, "otto", "a=b", on_outage=note))
        yield fleet
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_ready_after_the_first_list_and_then_one_watch(autojump_clock: MockClock) -> None:
    """The fleet is synced when the watch reports ready; changes then come by the watch alone."""
    api = ScriptedApi()
    api.write("ADDED", "a")
    async with watching(api) as fleet:
        assert fleet.synced
        assert known(fleet) == truth(api)
        for phase in ("Running", "Succeeded"):
            api.write("MODIFIED", "a", phase)
            await trio.sleep(0.1)
            assert fleet.records["a"].phase == phase
        api.write("DELETED", "a")
        await trio.sleep(0.1)
        assert known(fleet) == {}
    assert (api.lists, len(api.watches)) == (1, 1)


async def test_a_watch_that_ends_in_time_goes_on_from_the_last_version(autojump_clock: MockClock) -> None:
    """The usual end after 30 s costs no list: the next watch begins where bookmarks left off."""
    api = ScriptedApi()
    async with watching(api):
        for _ in range(5):
            await trio.sleep(20)
            api.version += 3
            api.bookmark()
    assert api.lists == 1
    assert api.watches[:3] == [10, 13, 19]
    assert len(api.watches) <= 5


async def test_a_cut_watch_goes_on_without_a_list_and_without_a_word(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One cut of a watch that had said something is no outage; what happened meanwhile is not missed."""
    api = ScriptedApi()
    outages: list[bool] = []
    async with watching(api, outages) as fleet:
        await trio.sleep(6)
        api.write("ADDED", "a")
        await trio.sleep(0.1)
        api.cut()
        api.write("ADDED", "b")
        await trio.sleep(1)
        assert known(fleet) == truth(api)
    assert (api.lists, api.watches, outages) == (1, [10, 11], [])
    assert caplog.messages == []


async def test_410_means_listing_again_and_what_vanished_is_gone(autojump_clock: MockClock) -> None:
    """After the history was compacted a new list tells what is there; a pod deleted meanwhile is reported."""
    api = ScriptedApi()
    api.write("ADDED", "a")
    async with watching(api) as fleet:
        with fleet.follow("a") as follow:
            api.bookmark()
            await trio.sleep(10)
            api.is_silent = True
            api.write("DELETED", "a")
            api.write("ADDED", "b")
            api.compact()
            api.is_silent = False
            api.history.clear()
            api.cut()
            record = await follow.wait(lambda record: record is not None and record.gone)
            assert record is not None
        assert known(fleet) == truth(api)
    assert api.lists == 2


async def test_an_outage_is_two_lines_and_tries_are_spaced(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """While the API is away it is tried ever more rarely; one line when it is lost, one when it is back."""
    api = ScriptedApi()
    outages: list[bool] = []
    with caplog.at_level(logging.INFO, "ottoscaler"):
        async with watching(api, outages) as fleet:
            api.away = True
            api.cut()
            await trio.sleep(600)
            tries = api.lists
            api.away = False
            api.write("ADDED", "a")
            await trio.sleep(10.1)
            assert known(fleet) == truth(api)
    assert 60 <= tries <= 140
    assert outages == [True, False]
    assert caplog.messages == ["the Kubernetes API is lost", "the Kubernetes API is back"]
    assert caplog.records[0].facts == {"reason": "connection refused"}  # type: ignore[attr-defined]  # put there by Log


async def test_the_servers_wish_to_wait_is_honoured(autojump_clock: MockClock) -> None:
    """Retry-After is waited for, even where our own delay would be shorter."""
    api = ScriptedApi()
    async with watching(api):
        api.refusal = Unavailable("slow down", retry_after=60)
        api.cut()
        before = api.lists
        await trio.sleep(59)
        assert api.lists == before


async def test_a_silent_watch_is_given_up_five_seconds_after_its_time(autojump_clock: MockClock) -> None:
    """A watch that never ends and says nothing is replaced by a list after 35 s."""
    api = ScriptedApi()
    async with watching(api) as fleet:
        api.is_silent = True
        api.write("ADDED", "a")
        await trio.sleep(34)
        assert (api.lists, known(fleet)) == (1, {})
        await trio.sleep(2)
        assert (api.lists, known(fleet)) == (2, truth(api))


async def test_a_watch_that_ends_without_a_word_is_followed_by_a_list(autojump_clock: MockClock) -> None:
    """A watch from a version of the future is quiet for its whole time: the list after it finds the truth."""
    api = ScriptedApi()
    for name in "abcd":
        api.write("ADDED", name)
    async with watching(api) as fleet:
        api.restore()
        api.cut()
        await trio.sleep(1)
        api.write("ADDED", "new")
        await trio.sleep(40)
        assert known(fleet) == truth(api)
        api.write("MODIFIED", "new", "Running")
        await trio.sleep(1)
        assert fleet.records["new"].phase == "Running"


async def test_a_server_that_ends_every_watch_at_once_is_not_hammered(autojump_clock: MockClock) -> None:
    """Watches that end at once are opened with growing pauses, not in a busy loop."""
    api = ScriptedApi()
    api.instant_end = True
    async with watching(api):
        await trio.sleep(300)
    assert len(api.watches) <= 80


async def test_a_refusal_before_the_first_list_comes_out(autojump_clock: MockClock) -> None:
    """No right to list pods is told at the start; the same later is an outage that may pass."""
    api = ScriptedApi()
    api.refusal = Refused("pods is forbidden", status=403)
    with pytest.raises(ExceptionGroup) as caught:
        async with watching(api):
            pass
    assert caught.group_contains(Refused)
    api.refusal = None
    outages: list[bool] = []
    async with watching(api, outages) as fleet:
        api.refusal = Refused("pods is forbidden", status=403)
        api.cut()
        await trio.sleep(30)
        api.refusal = None
        api.write("ADDED", "a")
        await trio.sleep(15)
        assert known(fleet) == truth(api)
    assert outages == [True, False]


async def test_an_api_that_is_away_at_the_start_is_waited_for(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Ready comes with the first list, however late, and the lines do not speak of a loss."""
    api = ScriptedApi()
    api.away = True
    caplog.set_level(logging.INFO, "ottoscaler")

    async with trio.open_nursery() as nursery:

        async def come_back() -> None:
            await trio.sleep(50)
            api.away = False

        nursery.start_soon(come_back)
        async with watching(api) as fleet:
            assert fleet.synced
    assert 50 < trio.current_time() < 61
    assert caplog.messages == ["the Kubernetes API is not reached yet", "the Kubernetes API is reached"]


STEPS = st.one_of(
    st.tuples(
        st.sampled_from(["ADDED", "MODIFIED"]), st.sampled_from("abcde"), st.sampled_from(["Pending", "Running"])
    ),
    st.tuples(st.just("DELETED"), st.sampled_from("abcde")),
    st.tuples(st.just("repeat"), st.integers(1, 5)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.05, 3.0, 40.0])),
    st.tuples(st.sampled_from(["cut", "compact", "bookmark", "restore"])),
    st.tuples(st.just("set"), st.sampled_from(["away", "is_silent", "instant_end"]), st.booleans()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_whatever_happens_the_fleet_ends_as_the_server_is(steps: list[tuple[Any, ...]]) -> None:
    """After any changes, repetitions, cuts, silences, outages and restores fleet and server soon agree."""

    async def play() -> None:
        api = ScriptedApi()
        async with watching(api) as fleet:
            for step in steps:
                match step:
                    case ("wait", seconds):
                        await trio.sleep(seconds)
                    case ("set", name, value):
                        setattr(api, name, value)
                    case ("DELETED", name):
                        if name in api.pods:
                            api.write("DELETED", name)
                    case ("ADDED" | "MODIFIED", name, phase):
                        api.write("MODIFIED" if name in api.pods else "ADDED", name, phase)
                    case (name, *arguments):
                        getattr(api, name)(*arguments)
            api.away = api.is_silent = api.instant_end = False
            await trio.sleep(90)
            assert known(fleet) == truth(api)
            assert fleet.version <= api.version

    trio.run(play, clock=MockClock(autojump_threshold=0))
