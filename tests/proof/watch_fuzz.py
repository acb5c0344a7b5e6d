"""A seeded script of steps against the real watch and fleet, in virtual time; whatever is done, they find the truth.

    python -m tests.proof.watch_fuzz --steps 1000000 --seed 1

Every 500 steps, and at the end, the server behaves for a while, and then the fleet, its index by event and every
follower must show exactly what the server has. All the time nobody may be told of an older state after a newer one.
The same seed plays the same steps again.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial

import trio
from trio.testing import MockClock

from ottoscaler.backoff import Backoff
from ottoscaler.errors import Expired, Refused, Unavailable
from ottoscaler.fleet import Fleet, Follow
from ottoscaler.kube.watch import watch_fleet
from ottoscaler.pods import Pod, PodRecord
from tests.proof.fuzzed_api import FAR_BACK, FuzzedApi
from tests.spine.determinism import schedule_from

NAMES = [f"pod-{number}" for number in range(40)]
EVENTS = [f"{number}-0" for number in range(8)]
PHASES = ["Pending", "Running", "Succeeded", "Failed"]
LOOK_EVERY = 500
SETTLE_SECONDS = 90.0
RETRY = Backoff(0.2, 10.0, jitter=0.0)


class Wrong(AssertionError):
    """The fleet is not what the server is, or told of an older state after a newer one."""


class JudgedFleet(Fleet):
    """A fleet that checks what it tells: of one name never an older state after a newer one, restores aside."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, PodRecord] = {}
        self._is_rewinding = False

    def replace(self, pods: Iterable[Pod | PodRecord], version: int, *, rewound: bool = False) -> None:
        """A history that went back may tell older states."""
        self._is_rewinding = rewound
        super().replace(pods, version, rewound=rewound)
        if rewound:
            self._told.clear()
        self._is_rewinding = False

    def _tell(self, record: PodRecord) -> None:
        last = self._told.get(record.name)
        is_older = last is not None and record.resource_version < last.resource_version
        if is_older and not record.gone and not self._is_rewinding:
            raise Wrong(f"{record} was told after {last}")
        self._told[record.name] = record
        super()._tell(record)


class Script:
    """The steps of one seed. `done` counts them by name, `lately` holds the last ones for whoever looks for a cause."""

    def __init__(self, seed: int) -> None:
        self.api = FuzzedApi()
        self.done: Counter[str] = Counter()
        self.lately: list[str] = []
        self.answers: list[Pod] = []
        self._dice = random.Random(seed)
        self._fleet: Fleet = JudgedFleet()
        self._steps: dict[str, Callable[[], float | None]] = {
            name.removeprefix("_do_"): getattr(self, name) for name in dir(self) if name.startswith("_do_")
        }
        self._names = list(WEIGHTS)
        self._weights = list(WEIGHTS.values())

    async def play(self, steps: int, on_progress: Callable[[int], None] = lambda step: None) -> None:
        """Do the steps and look. Raises `Wrong`, in a group, noting the last steps."""
        async with trio.open_nursery() as nursery:
            watch = partial(watch_fleet, self.api, self._fleet, "otto", "ottoscaler/instance=i", retry=RETRY)
            await nursery.start(watch)
            with ExitStack() as stack:
                follows = [stack.enter_context(self._fleet.follow(name)) for name in NAMES]
                for begun in range(0, steps, LOOK_EVERY):
                    await self._do(min(LOOK_EVERY, steps - begun))
                    await self._look(follows)
                    on_progress(min(begun + LOOK_EVERY, steps))
            nursery.cancel_scope.cancel(reason="the script is over")

    async def _do(self, steps: int) -> None:
        self.lately.clear()
        for name in self._dice.choices(self._names, self._weights, k=steps):
            self.done[name] += 1
            self.lately.append(name)
            if seconds := self._steps[name]():
                await trio.sleep(seconds)

    async def _look(self, follows: list[Follow]) -> None:
        """Let the server behave until everybody can know the truth, then compare."""
        api = self.api
        api.trouble, api.ends_at_once, api.expires_in_stream = None, False, False
        self._learn(len(self.answers))
        await trio.sleep(SETTLE_SECONDS)
        api.bookmark()
        await trio.sleep(1.0)
        _compare(api, self._fleet, follows)

    def _learn(self, count: int) -> None:
        for answer in self.answers[:count]:
            self._fleet.learn(answer)
        del self.answers[:count]

    def _any(self, pods: Mapping[str, Pod]) -> str | None:
        return self._dice.choice(list(pods)) if pods else None

    def _free(self) -> str | None:
        free = [name for name in NAMES if name not in self.api.pods and name not in self.api.hidden]
        return self._dice.choice(free) if free else None

    def _forget(self) -> None:
        """Answers of a time that the server has forgotten do not arrive any more."""
        self.answers.clear()

    # -- what happens to pods

    def _do_added(self) -> None:
        if name := self._free():
            self.api.add(name, self._dice.choice(EVENTS))

    def _do_modified(self) -> None:
        if name := self._any(self.api.pods):
            self.api.modify(name, self._dice.choice(PHASES))

    def _do_moved(self) -> None:
        if name := self._any(self.api.pods):
            self.api.modify(name, "Running", self._dice.choice(EVENTS))

    def _do_deleted(self) -> None:
        if name := self._any(self.api.pods):
            self.api.delete(name)

    def _do_replaced(self) -> None:
        """Gone, and another of its name there at once."""
        if name := self._any(self.api.pods):
            self.api.delete(name)
            self.api.add(name, self._dice.choice(EVENTS))

    def _do_relabelled_out(self) -> None:
        if name := self._any(self.api.pods):
            self.api.hide(name, at_its_own_version=self._dice.random() < 0.5)

    def _do_relabelled_in(self) -> None:
        if name := self._any(self.api.hidden):
            self.api.unhide(name)

    def _do_changed_unseen(self) -> None:
        if name := self._any(self.api.hidden):
            self.api.touch_hidden(name, delete=self._dice.random() < 0.3)

    # -- what our own requests are answered

    def _do_created_by_us(self) -> None:
        """A create is answered; the answer may arrive before the watch tells of the pod, or long after its end."""
        if name := self._free():
            self.api.add(name, self._dice.choice(EVENTS))
            self.answers.append(self.api.pods[name])

    def _do_read_by_us(self) -> None:
        if name := self._any(self.api.pods):
            self.answers.append(self.api.pods[name])

    def _do_answered(self) -> None:
        self._learn(self._dice.randint(1, 3))

    # -- what happens to the watch

    def _do_bookmark(self) -> None:
        self.api.bookmark()

    def _do_repeated(self) -> None:
        self.api.repeat(self.api.recent(self._dice.randint(1, 8)))

    def _do_stale(self) -> None:
        """Old events once more, newest first."""
        self.api.repeat(self.api.recent(self._dice.randint(1, 30))[::-1][-5:])

    def _do_reordered(self) -> None:
        """A few changes are told in another order."""
        held, count = self.api.hold_back(), self._dice.randint(2, 5)
        for _ in range(count):
            self._dice.choice([self._do_added, self._do_modified, self._do_modified, self._do_deleted])()
        self.api.let_go(held, self._dice.sample(range(count), count))

    def _do_cut(self) -> None:
        self.api.cut(Unavailable("the watch broke off"))

    def _do_lost(self) -> None:
        self.api.lose()

    def _do_gone_in_stream(self) -> None:
        """410 in the middle of a watch."""
        self.api.compact()
        self.api.cut(Expired("too old resource version"))

    def _do_gone_as_status(self) -> float:
        """The watch breaks off, and what came until the next one is opened was forgotten: 410 as its answer."""
        self.api.expires_in_stream = self._dice.random() < 0.5
        self.api.lose()
        self._do_modified()
        self.api.compact()
        return 0.0

    def _do_silent(self) -> float:
        """Nothing arrives any more; half of the time for longer than anybody waits."""
        self.api.silence()
        return self._dice.choice([0.0, 1.0, 34.0, 50.0])

    def _do_away(self) -> float:
        refused = Refused("pods is forbidden", status=403)
        busy = Unavailable("too many requests", status=429, retry_after=2.0)
        self.api.trouble = self._dice.choice([Unavailable("connection refused"), refused, busy])
        self.api.lose()
        return self._dice.choice([0.0, 0.5, 15.0])

    def _do_back(self) -> None:
        self.api.trouble = None

    def _do_ends_at_once(self) -> float:
        """Watches end as soon as they have told what there is."""
        self.api.ends_at_once = not self.api.ends_at_once
        return 5.0

    def _do_restored(self) -> float:
        """An old backup comes back. Its versions are passed again only long after."""
        self._forget()
        self.api.restore([name for name in NAMES if self._dice.random() < 0.3], FAR_BACK)
        if self._dice.random() < 0.5:
            self.api.lose()
        return 45.0

    def _do_switched(self) -> float:
        """Another server answers, whose versions are higher and whose history does not reach back."""
        self._forget()
        self.api.restore([name for name in NAMES if self._dice.random() < 0.3], -FAR_BACK)
        self.api.compact()
        self.api.lose()
        return 1.0

    def _do_moment(self) -> float:
        return self._dice.choice([0.001, 0.02, 0.3])

    def _do_quiet_time(self) -> float:
        return self._dice.choice([3.0, 31.0, 40.0])


WEIGHTS = {
    "added": 170, "modified": 330, "moved": 15, "deleted": 90, "replaced": 20, "relabelled_out": 30,
    "relabelled_in": 30, "changed_unseen": 10, "created_by_us": 50, "read_by_us": 15, "answered": 40, "bookmark": 20,
    "repeated": 25, "stale": 25, "reordered": 25, "cut": 4, "lost": 3, "gone_in_stream": 1.5, "gone_as_status": 1.5,
    "silent": 1, "away": 1, "back": 10, "ends_at_once": 0.5, "restored": 0.5, "switched": 0.5, "moment": 60,
    "quiet_time": 15,
}  # fmt: skip
"""How often each step comes, in about a thousand."""


def _compare(api: FuzzedApi, fleet: Fleet, follows: list[Follow]) -> None:
    """Fleet, index and followers against the server."""
    truth = {name: PodRecord.from_pod(pod) for name, pod in api.pods.items()}
    if dict(fleet.records) != truth:
        both = fleet.records.keys() | truth.keys()
        pairs = {name: (fleet.records.get(name), truth.get(name)) for name in both}
        wrong = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        raise Wrong(f"{len(wrong)} pods are wrong, the first as (known, true): {next(iter(wrong.items()))}")
    for event_id in EVENTS:
        known = {record.name for record in fleet.pods_of_event(event_id)}
        _must(known == {name for name, record in truth.items() if record.event_id == event_id}, f"of {event_id}")
    for follow in follows:
        last, true = follow.record, truth.get(follow.name)
        _must(last == true if true else last is None or last.gone, f"{follow} instead of {true}")
    _must(fleet.version == api.version, f"the fleet is at {fleet.version}, the server at {api.version}")


def _must(holds: bool, about: str) -> None:
    if not holds:
        raise Wrong(about)


def play(seed: int, steps: int, on_progress: Callable[[int], None] = lambda step: None) -> tuple[Script, float]:
    """Play a seed; returns the script and how many seconds of virtual time it took."""
    clock = MockClock(autojump_threshold=0)
    schedule_from(seed)

    async def main() -> Script:
        script = Script(seed)
        try:
            await script.play(steps, on_progress)
        except BaseException as wrong:
            wrong.add_note(f"seed {seed}, step {sum(script.done.values())}, lately: {' '.join(script.lately[-30:])}")
            raise
        return script

    return trio.run(main, clock=clock), clock.current_time()


def main(arguments: list[str] | None = None) -> None:
    """Play, show how far it is, and print what was done."""
    parser = argparse.ArgumentParser(description="Fuzz the watch; a failing seed fails again.")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    asked = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    print(f"seed {asked.seed}, {asked.steps:,} steps", flush=True)
    begun = time.monotonic()

    def show(step: int) -> None:
        if step % (asked.steps // 50 // LOOK_EVERY * LOOK_EVERY or LOOK_EVERY) == 0 or step == asked.steps:
            print(f"  {step:>9,} steps, {time.monotonic() - begun:5.1f} s", file=sys.stderr, flush=True)

    script, virtual = play(asked.seed, asked.steps, show)
    seconds, api = time.monotonic() - begun, script.api
    print(f"the fleet was the truth at each of {-(-asked.steps // LOOK_EVERY):,} looks")
    print(f"  {seconds:.1f} s, {asked.steps / seconds:,.0f} steps/s, {virtual / 3600:,.1f} h of virtual time")
    print(f"  {api.delivered:,} events delivered, {api.watches:,} watches, {api.lists:,} lists")
    print("  " + ", ".join(f"{name} {count:,}" for name, count in sorted(script.done.items())))


if __name__ == "__main__":
    main()
