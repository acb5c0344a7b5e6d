"""Tests that run side by side: each is an async function that gets the shared bench, and reports for itself.

What is proven here waits more than it works (for leases, deadlines, ends), so the chosen tests of the folder run a few
at a time in one `trio.run`, when the first of them is asked for; each test then shows what became of its own run.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import outcome
import pytest
import trio

from tests.process.bench import Bench, open_bench

AT_ONCE = 4
LIMIT_SECONDS = 150.0
"""Of one scenario, which on an idle machine takes up to ten."""
ALL_SECONDS = 1800
"""The first test waits for all of them, which on an idle machine takes a minute or two."""

Scenario = Callable[..., Awaitable[None]]
Outcomes = dict[str, outcome.Outcome[None]]


def together(scenario: Scenario) -> Callable[..., None]:
    """Make a test of an async function whose first parameter is the bench; the others come from parametrize."""
    parameters = list(inspect.signature(scenario).parameters.values())[1:]

    @functools.wraps(scenario)
    def test(request: pytest.FixtureRequest, outcomes: Outcomes, **parameters: Any) -> None:
        outcomes[request.node.nodeid].unwrap()

    own = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("request", "outcomes")]
    test.__signature__ = inspect.Signature([*own, *parameters])  # type: ignore[attr-defined]  # pytest reads it
    del test.__wrapped__  # pytest must not look at the async function behind it
    test.scenario = scenario  # type: ignore[attr-defined]  # found again by `run_together`
    for mark in (pytest.mark.process, pytest.mark.slow_clock, pytest.mark.timeout(ALL_SECONDS)):
        test = mark(test)
    return test


def run_together(items: list[pytest.Item], folder: Path) -> Outcomes:
    """Run the scenarios of all these tests and return how each ended, by test."""
    outcomes: Outcomes = {}
    trio.run(_run_all, items, folder, outcomes)
    return outcomes


async def _run_all(items: list[pytest.Item], folder: Path, outcomes: Outcomes) -> None:
    free = trio.CapacityLimiter(AT_ONCE)

    async def run_one(item: pytest.Item, bench: Bench) -> None:
        function, chosen = item.function, getattr(item, "callspec", None)  # type: ignore[attr-defined]  # Function
        async with free:
            run = functools.partial(_limited, function.scenario, bench, **(chosen.params if chosen else {}))
            outcomes[item.nodeid] = await outcome.acapture(run)

    async with open_bench(folder) as bench, trio.open_nursery() as nursery:
        for item in items:
            if hasattr(getattr(item, "function", None), "scenario"):
                nursery.start_soon(run_one, item, bench)


async def _limited(scenario: Scenario, bench: Bench, **parameters: Any) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        await scenario(bench, **parameters)
