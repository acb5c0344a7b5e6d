"""The fuzzed watch, briefly; `python -m tests.proof.watch_fuzz` does a million steps."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.fleet import Fleet
from ottoscaler.kube.watch import watch_fleet
from tests.proof.fuzzed_api import FuzzedApi
from tests.proof.watch_fuzz import RETRY, WEIGHTS, play


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of log lines tell nobody anything."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def test_a_list_older_than_an_answer_shows_that_history_went_back(autojump_clock: MockClock) -> None:
    """A pod that a create was answered, on a server that was then restored from before, is not there for ever."""
    api, fleet = FuzzedApi(), Fleet()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(watch_fleet, api, fleet, "otto", "a=b", retry=RETRY))
        await trio.sleep(1)
        api.silence()
        for _ in range(5):
            api.add(f"other-{api.version}", "1-0")
        api.add("ours", "2-0")
        fleet.learn(api.pods["ours"])
        api.restore(["ours"], 2)
        await trio.sleep(60)
        assert "ours" not in fleet.records
        assert fleet.records.keys() == api.pods.keys()
        nursery.cancel_scope.cancel(reason="seen enough")


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_the_watch_is_told_the_fleet_finds_the_truth(seed: int) -> None:
    """After each 500 of 50,000 steps fleet, index and followers are as the server is, and no step was left out."""
    script, _ = play(seed, 50_000)
    assert script.done.keys() == WEIGHTS.keys()


def test_a_seed_plays_the_same_again() -> None:
    """Steps, lists and watches of a seed are the same each time."""
    one, two = (play(3, 3_000)[0] for _ in range(2))
    assert one.done == two.done
    assert (one.api.delivered, one.api.lists, one.api.watches) == (two.api.delivered, two.api.lists, two.api.watches)
