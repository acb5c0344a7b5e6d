"""The steps that hypothesis may take; `model.py` says what must hold after each.

Each step ends with some time, from none to more than a lease: what comes close together is what matters.
"""

from __future__ import annotations

import logging
from functools import partial

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.proof.model import ENDLESS, STUCK, Story
from tests.spine.world import Plan

which = st.integers(0, 2)
pick = st.integers(0, 30)
then = st.sampled_from([0.0, 0.005, 0.02, 0.1, 0.3, 1.0, 2.0, 5.0, 12.0])
task = st.sampled_from(["a", "b"])
plans = st.sampled_from(
    [
        Plan(duration=ENDLESS),
        Plan(start_delay=0.3, duration=3.0),
        Plan(),
        Plan(duration=8.0, exit_code=1),
        Plan(start_delay=2.0, duration=ENDLESS, ignores_term=True),
        STUCK,
    ]
)
LOST_ANSWERS = st.sampled_from(
    ["record", "tend", "register", "close", "offer", "mark_victims", "renew", "adopt", "read"]
)
TROUBLES = st.sampled_from(["created", "create", "delete", "list watch", "create delete"])


class ScalerMachine(RuleBasedStateMachine):
    """Up to three whole scalers over one twin of Redis and one of the cluster."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.CRITICAL)
        self.story = Story()
        self.is_broken = False

    def teardown(self) -> None:
        """Let all come to its end and judge it, unless something is broken already."""
        try:
            if not self.is_broken:
                self.story.settle()
                self.story.look_at_the_end()
        finally:
            self.story.theatre.close()
            logging.disable(logging.NOTSET)

    @invariant()
    def promises_hold(self) -> None:
        """After each step."""
        try:
            self.story.look()
        except BaseException:
            self.is_broken = True
            raise

    @initialize(number=st.integers(1, 3), count=st.integers(1, 4), task=task, plan=plans, then=then)
    def begin(self, number: int, count: int, task: str, plan: Plan, then: float) -> None:
        """Some replicas run, and there is work."""
        for replica in self.story.replicas[:number]:
            self.story.start(replica)
        self.story.theatre.advance(5.0)
        self.story.unrest_until = 0.0
        self.scale_up(count, task, plan, then)

    # -- events

    @rule(count=st.integers(1, 4), task=task, plan=plans, then=then)
    def scale_up(self, count: int, task: str, plan: Plan, then: float) -> None:
        """Workers are asked for."""
        self.story.send(plan, type="scale_up", pod_count=str(count), task_id=task)
        self.story.theatre.advance(then)

    @rule(kind=st.sampled_from(["scale_down", "cancel", "explode"]), count=st.integers(1, 4), task=task, then=then)
    def end_work(self, kind: str, count: int, task: str, then: float) -> None:
        """Workers are to stop, an event is cancelled (waiting, running, ended or unknown), or nobody knows what."""
        match kind:
            case "scale_down":
                self.story.send(Plan(), type=kind, pod_count=str(count), task_id=task)
            case "cancel":
                known = ["1-1", *self.story.sent]
                self.story.send(Plan(), type=kind, event_id=known[-count % len(known)])
            case _:
                self.story.send(Plan(), type=kind)
        self.story.theatre.advance(then)

    # -- replicas

    @rule(which=which, how=st.sampled_from(["kill", "drain"]), replaced=st.booleans(), then=then)
    def stop(self, which: int, how: str, replaced: bool, then: float) -> None:
        """`kill -9` or SIGTERM, and perhaps another process at once."""
        self.story.stop(self.story.replicas[which], how)
        if replaced:
            self.story.start(self.story.replicas[(which + 1) % 3])
        self.story.theatre.advance(then)

    @rule(which=which, then=then)
    def start(self, which: int, then: float) -> None:
        """A process starts."""
        self.story.start(self.story.replicas[which])
        self.story.theatre.advance(then)

    # -- pods

    @rule(pick=pick, how=st.sampled_from([0, 1, 137, "delete", "strip"]), then=then)
    def touch_pod(self, pick: int, how: int | str, then: float) -> None:
        """A worker ends by itself, or somebody deletes its pod or strips its labels."""
        name = self.story.pod(pick)
        if name and isinstance(how, int):
            self.story.end_pod(name, how)
        elif name:
            self.story.take_away(name, labels_only=how == "strip")
        self.story.theatre.advance(then)

    @rule(seconds=st.sampled_from([0.2, 3.0, 12.0]), plan=plans, cancelled=st.booleans(), then=then)
    def late_create(self, seconds: float, plan: Plan, cancelled: bool, then: float) -> None:
        """A create gets no answer and is carried out later, perhaps when its worker was stopped long ago."""
        self.story.world.late_creates.append(seconds)
        event_id = self.story.send(plan, type="scale_up", pod_count="2", task_id="a")
        self.story.theatre.advance(1.0)
        if cancelled:
            self.story.send(Plan(), type="cancel", event_id=event_id)
        self.story.theatre.advance(then)

    # -- Redis and the API

    @rule(weather=st.sampled_from(["refusing", "silent"]), seconds=st.sampled_from([0.5, 4.0, 9.0]), then=then)
    def redis_away(self, weather: str, seconds: float, then: float) -> None:
        """Redis goes away or falls silent, and comes back."""
        self.story.silences += 1
        self.story.theatre.do(partial(setattr, self.story.server, "weather", weather))
        self.story.theatre.advance(seconds)
        self.story.note_unrest()
        self.story.theatre.do(partial(setattr, self.story.server, "weather", "fine"))
        self.story.theatre.advance(then)

    @rule(which=which, seconds=st.sampled_from([1.0, 6.0]), trouble=TROUBLES, plan=plans, then=then)
    def cut_off(self, which: int, seconds: float, trouble: str, plan: Plan, then: float) -> None:
        """One replica alone loses Redis with work under way that its API does not let it do. When its lease is over the
        API is well again, and only then Redis.
        """
        replica = self.story.replicas[which]
        replica.refused = frozenset(trouble.split())
        self.story.send(plan, type="scale_up", pod_count="2", task_id="b")
        self.story.theatre.advance(0.3)
        replica.is_cut_off = True
        self.story.silences += 1
        self.story.theatre.advance(seconds)
        replica.refused = frozenset()
        self.story.theatre.advance(1.5)
        replica.is_cut_off = False
        self.story.note_unrest()
        self.story.theatre.advance(then)

    @rule(name=LOST_ANSWERS, then=then)
    def lose_answer(self, name: str, then: float) -> None:
        """The next call of that kind is carried out, and its answer gets lost."""
        self.story.server.lose_answer_of.add(name)
        self.story.theatre.advance(then)

    @rule(which=which, trouble=TROUBLES, is_over=st.booleans(), then=then)
    def api(self, which: int, trouble: str, is_over: bool, then: float) -> None:
        """The API refuses some of a replica's requests or loses their answers from now on; or it is well again."""
        self.story.note_unrest()
        self.story.replicas[which].refused = frozenset(() if is_over else trouble.split())
        self.story.theatre.advance(then)


BRIEF = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
"""What the suite does; the profile `proof` does more."""
