"""A model of events, workers, leases and pods, told to whole scalers step by step; hypothesis looks for the story.

`Story` holds what was done and what may be seen of it from outside: the stream's contents, the pods, what ran, and
each write in the moment in which it is sent. `ScalerMachine` draws the steps. After each one every promise is looked
at; at the end all harm is over, and everything must come to its end.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import trio

from ottoscaler.errors import Conflict, Unavailable
from ottoscaler.stream.entry_id import parse_id
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.chaos.light_stage import suppress_ends
from tests.proof.theatre import Theatre
from tests.spine.scaler import Scaler
from tests.spine.world import Plan, World, ambiguous, lost

POD = re.compile(r"otto-agent-(?P<index>\d+)-(?P<event>\d+-\d+)(?:-r(?P<attempt>\d+))?")
SETTLE_SECONDS = 900
LATEST_SECONDS = 15
"""Longer than any late create is on its way."""
FENCE_SECONDS = 100
"""Longer than any fence: what is left then is left for ever."""
ENDLESS = 1e6
UNREST_SECONDS = 15.0
"""An expired lease, the wait after a start or an outage, and the next look at the list of fences."""
STUCK = Plan(stuck="ErrImagePull", reason="not found")


class Broken(AssertionError):
    """A promise does not hold."""


class LateWorld(World):
    """A world that notes which late creates nobody could be asked to undo."""

    def __init__(self, story: Story) -> None:
        super().__init__(lambda labels: story.plans.get(labels["ottoscaler/event-id"], Plan()))
        self._story = story

    def create_later(self, body: Mapping[str, Any], seconds: float) -> None:
        """Carry out a create when its client is long gone."""

        async def later() -> None:
            await trio.sleep(seconds)
            if self._story.is_unrest():
                labels = body["metadata"]["labels"]
                number = int(labels["ottoscaler/index"]), int(labels["ottoscaler/attempt"])
                self._story.unguarded.add((labels["ottoscaler/event-id"], *number))
            with suppress(Conflict):
                self.create(body)

        assert self._nursery is not None
        self._nursery.start_soon(later)


class Replica:
    """A scaler that can be killed, drained and started again, each time as a new session."""

    def __init__(self, story: Story, number: int) -> None:
        self.number = number
        self.lives = 0
        self.is_alive = False
        self.scaler: Scaler
        self.refused: frozenset[str] = frozenset()
        """Requests that the API does not answer."""
        self.is_cut_off = False
        """Redis answers others, but not this one."""
        self._story = story
        self._life = trio.CancelScope()

    async def live(self) -> None:
        """One life, to its end by itself, a drain or a kill."""
        self.lives += 1
        self.is_alive = True
        self._life = trio.CancelScope()
        session = f"r{self.number}-{self.lives}"
        self.scaler = Scaler(self._story.world, self._story.server, session, drain_seconds="2")
        self.scaler.kube.fail = self._fail
        self.scaler.kube._write = partial(self._write, session, self.scaler.kube._write)  # type: ignore[method-assign]  # harmed
        self.scaler.stream._call = partial(self._call_redis, self.scaler.stream._call)  # type: ignore[method-assign]  # the same
        with self._life, suppress_ends():
            await self.scaler.run()
        self.is_alive = False

    def kill(self) -> None:
        """`kill -9`."""
        self._life.cancel(reason="kill -9")

    def drain(self) -> None:
        """SIGTERM."""
        if hasattr(self.scaler, "drain"):
            self.scaler.drain.request("SIGTERM")

    def _fail(self, verb: str, name: str) -> Exception | None:
        if verb not in self.refused:
            return None
        return ambiguous(verb) if verb == "created" else lost(verb)

    async def _call_redis(self, call: Any, name: str, script: Any) -> Any:
        if self.is_cut_off:
            await trio.lowlevel.checkpoint()
            raise Unavailable("no route to Redis")
        return await call(name, script)

    async def _write(self, session: str, write: Any, verb: str, name: str) -> None:
        """The lease is asked first, as in the real client; then the write is judged, then sent."""
        self.scaler.kube._may_write()
        self._story.judge_write(session, verb, name)
        await write(verb, name)


class Story:
    """One example: twins, replicas, and what has been seen so far."""

    def __init__(self) -> None:
        self.plans: dict[str, Plan] = {}
        self.world = LateWorld(self)
        self.theatre = Theatre()
        self.server = MemoryServer(clock=self.theatre.now, started_at=1_760_000_000.0)
        self.theatre.start(partial(self.world.run, task_status=trio.TASK_STATUS_IGNORED))
        self.replicas = [Replica(self, number) for number in range(3)]
        self.sent: dict[str, dict[str, str]] = {}
        self.excused: set[str] = set()
        """Pods that harm took away or made unseen: their workers may fail."""
        self.unguarded: set[tuple[str, int, int]] = set()
        """Attempts whose name a late create may have found free: nobody may have been able to guard it."""
        self.unrest_until = 0.0
        self.wrong: list[str] = []
        self.silences = 0
        """How often a process may have fallen silent before it gave a sign of life for an event: three are too many."""
        self._outcomes: dict[tuple[str, str], str] = {}
        self._epochs: dict[str, int] = {}
        self._endings: dict[str, str] = {}

    # -- acting

    def send(self, plan: Plan, **fields: str) -> str:
        """Add an event, whatever the weather: a producer waits for its own Redis."""
        event_id = self.theatre.do(lambda: self.server.add_entry(tuple(fields.items())))
        self.sent[event_id], self.plans[event_id] = fields, plan
        return event_id

    def start(self, replica: Replica) -> None:
        """Begin a life where there is none."""
        if not replica.is_alive:
            self.note_unrest()
            self.theatre.start(replica.live)

    def stop(self, replica: Replica, how: str) -> None:
        """`kill` or `drain` a replica, where it lives."""
        if replica.is_alive:
            self.note_unrest()
            self.silences += how == "kill"
            self.theatre.do(replica.kill if how == "kill" else replica.drain)

    def pod(self, pick: int) -> str | None:
        """One of the pods that bear their labels."""
        seen = [name for name, pod in sorted(self.world.pods.items()) if pod["metadata"]["labels"]]
        return seen[pick % len(seen)] if seen else None

    def end_pod(self, name: str, code: int) -> None:
        """A worker ends by itself, now."""
        ended = {
            "name": "worker",
            "state": {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}},
        }

        def end(pod: dict[str, Any]) -> None:
            pod["status"] |= {"phase": "Failed" if code else "Succeeded", "containerStatuses": [ended]}

        if self.world.pods[name]["status"]["phase"] == "Running":
            self.theatre.do(lambda: self.world.change(name, end))

    def take_away(self, name: str, *, labels_only: bool) -> None:
        """Somebody deletes a pod, or strips its labels."""
        self.excused.add(name)
        self.theatre.do(lambda: (self.world.strip_labels if labels_only else self.world.remove)(name))

    def settle(self) -> None:
        """End all harm, run everything, and let it come to its end."""
        self.note_unrest()
        self.theatre.do(partial(setattr, self.server, "weather", "fine"))
        self.world.late_creates.clear()
        for replica in self.replicas:
            replica.refused, replica.is_cut_off = frozenset(), False
        for _ in range(0, SETTLE_SECONDS, 20):
            self.theatre.advance(20)
            self.start(self.replicas[0])
            self._end_the_endless()
            if set(self._ended()) >= set(self.sent) and not self.server.progress and not self.server.fences:
                break
        self.theatre.advance(LATEST_SECONDS)
        if self.world.pods or self.server.fences:
            self.theatre.advance(FENCE_SECONDS)

    def _end_the_endless(self) -> None:
        for name in list(self.world.pods):
            match = POD.fullmatch(name)
            if match and self.plans[match["event"]].duration == ENDLESS:
                self.end_pod(name, 0)

    def is_unrest(self) -> bool:
        """Whether names may be unguarded: a replica came or went a moment ago, or cannot reach Redis or the API."""
        cannot = self.server.weather != "fine" or any(
            replica.refused or replica.is_cut_off for replica in self.replicas
        )
        is_nobody = not any(replica.is_alive for replica in self.replicas)
        return cannot or is_nobody or self.theatre.now() < self.unrest_until

    def note_unrest(self) -> None:
        """A replica comes or goes, or an outage ends: whose fences are whose is settled again only after a while."""
        self.unrest_until = self.theatre.now() + UNREST_SECONDS

    # -- judging

    def judge_write(self, session: str, verb: str, name: str) -> None:
        """A create is sent by the owner only; a delete has a reason that was written down before."""
        if not (match := POD.fullmatch(name)):
            return
        event_id, index, attempt = match["event"], match["index"], match["attempt"] or "1"
        progress = self.server.progress.get(event_id)
        if verb == "create" and (progress is None or progress["owner"] != session):
            self.wrong.append(f"P2: {session} sent {verb} {name}, whose event is as follows: {progress}")
        if verb != "delete" or progress is None or self.plans[event_id].stuck:
            return
        if not {f"o:{index}", f"t:{index}:{attempt}", f"s:{index}"} & progress.keys():
            self.wrong.append(f"P1: {session} deleted {name} before its end was recorded: {progress}")

    def look(self) -> None:
        """All that must hold at any instant. Raises `Broken`."""
        _must(not self.wrong, "; ".join(self.wrong))
        twice = [run for run, times in Counter(self.world.runs).items() if times > 1 and run not in self.unguarded]
        _must(not twice, f"P2: ran more than once: {twice}")
        for event_id, progress in self.server.progress.items():
            self._look_at_progress(event_id, progress)
        ended = self._ended()
        _must(max(ended.values(), default=1) == 1, f"P2: several endings: {ended.most_common(2)}")
        for event_id, (ending, _) in self.server.done.items():
            _must(self._endings.setdefault(event_id, ending) == ending, f"P2: {event_id} ended again: {ending}")
            _must(event_id not in self.server.progress, f"P2: {event_id} has ended and goes on")
        _must(self._endings.keys() == ended.keys(), f"P1: ended {set(self._endings)}, written {set(ended)}")
        for event_id in self.sent.keys() - ended.keys() - self.server.progress.keys():
            _must(self._is_waiting(event_id), f"P1: {event_id} is nowhere")

    def _look_at_progress(self, event_id: str, progress: dict[str, str]) -> None:
        epoch, owner = int(progress["epoch"]), progress["owner"]
        _must(epoch >= self._epochs.get(event_id, 0), f"the epoch of {event_id} went back to {epoch}")
        self._epochs[event_id] = epoch
        offered = [lane for lane, ids in self.server.offered.items() if event_id in ids]
        holders = [session for session, ids in self.server.held.items() if event_id in ids]
        _must(holders == [owner] * bool(owner), f"{event_id} belongs to {owner!r} and is held by {holders}")
        _must(len(offered) == (not owner), f"{event_id} belongs to {owner!r} and is offered in {offered}")
        for name, text in progress.items():
            if name.startswith(("o:", "t:")):
                stands = self._outcomes.setdefault((event_id, name), text)
                _must(stands == text, f"P2: the outcome {name} of {event_id} was {stands}, is {text}")

    def _ended(self) -> Counter[str]:
        entries = [*self.server.results.entries.values(), *self.server.dead_letters.entries.values()]
        return Counter(dict(pairs)[b"event_id"].decode() for pairs in entries)

    def _is_waiting(self, event_id: str) -> bool:
        group = self.server.events.groups.get(self.server.keys.group)
        return group is None or parse_id(event_id) > group.last or parse_id(event_id) in group.pending

    def look_at_the_end(self) -> None:
        """All that must hold once everything has settled. Raises `Broken`."""
        self.look()
        _must(self._ended().keys() == self.sent.keys(), f"P1: never ended: {set(self.sent) - set(self._ended())}")
        _must(not set(self.world.pods) - self.excused, f"P3: left over: {sorted(self.world.pods)}")
        _must(not self.server.fences, f"P3: fences left over: {self.server.fences}")
        left = [key for key in self.server.as_keys() if ":progress:" in key or ":held:" in key]
        _must(not left, f"P3: left over: {left}")
        judge = MemoryStream(self.server, "judge")
        for _, fields in self.theatre.ask(lambda: judge.read_entries("results", "0", 9999, 0.0)):
            self._look_at_result(fields)
        for _, fields in self.theatre.ask(lambda: judge.read_entries("dlq", "0", 9999, 0.0)):
            is_good = self.sent[fields["event_id"]]["type"] in ("scale_up", "scale_down")
            excused = fields["cause"] == "HandlingFailed" and self.silences >= 3
            _must(excused or not is_good, f"P5: a good event became a dead letter: {fields}")

    def _look_at_result(self, fields: dict[str, str]) -> None:
        event_id, workers = fields["event_id"], msgspec.json.decode(fields["workers"])
        if fields["type"] != "scale_up":
            return
        _must([each["index"] for each in workers] == [*range(1, int(fields["requested"]) + 1)], f"P1: {fields}")
        ran = {(event, index) for event, index, _ in self.world.runs}
        for worker in workers:
            recorded = self._outcomes.get((event_id, f"o:{worker['index']}"))
            if recorded is not None:
                same = msgspec.json.decode(recorded)
                _must(same["outcome"] == worker["outcome"], f"P2: recorded {same}, told {worker}")
            name, has_run = worker["name"], (event_id, worker["index"]) in ran
            _must(worker["outcome"] != "succeeded" or has_run, f"P6: succeeded without having run: {worker}")
            excused = name in self.excused or self.plans[event_id].stuck or worker["cause"] in EXPLAINED
            _must(worker["outcome"] != "failed" or bool(excused), f"P2: failed for no reason: {worker}")


EXPLAINED = ("ExitCode", "Killed", "ApiUnavailable")
"""What workers themselves, and an API that stays away, may end with."""


def _must(holds: bool, promise: str) -> None:
    if not holds:
        raise Broken(promise)
