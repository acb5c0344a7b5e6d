"""The steps that hypothesis may take; `model.py` says what must hold after each."""

from __future__ import annotations

import logging
from functools import partial

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.proof.model import ENDLESS, STUCK, Story
from tests.spine.world import Plan

which = st.integers(0, 2)
pick = st.integers(0, 30)
task = st.sampled_from(["a", "b"])
plans = st.sampled_from(
    [
        Plan(),
        Plan(start_delay=0.3, duration=3.0),
        Plan(duration=20.0, exit_code=1),
        Plan(duration=ENDLESS),
        Plan(start_delay=2.0, duration=ENDLESS, ignores_term=True),
        STUCK,
    ]
)
LOST_ANSWERS = ("read", "record", "close", "register", "tend", "offer", "mark_victims", "renew", "adopt")
TROUBLES = st.sampled_from(["create", "created", "delete", "list watch", "create delete", ""])


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

    @initialize(number=st.integers(1, 3))
    def begin(self, number: int) -> None:
        """Some replicas run."""
        for replica in self.story.replicas[:number]:
            self.story.start(replica)
        self.story.theatre.advance(0.5)

    # -- events

    @rule(count=st.integers(1, 4), task=task, plan=plans)
    def scale_up(self, count: int, task: str, plan: Plan) -> None:
        """Workers are asked for."""
        self.story.send(plan, type="scale_up", pod_count=str(count), task_id=task)

    @rule(count=st.integers(1, 4), task=task)
    def scale_down(self, count: int, task: str) -> None:
        """Workers are to stop."""
        self.story.send(Plan(), type="scale_down", pod_count=str(count), task_id=task)

    @rule(pick=pick)
    def cancel(self, pick: int) -> None:
        """An event is cancelled: waiting, running, ended or unknown."""
        known = [*self.story.sent, "1-1"]
        self.story.send(Plan(), type="cancel", event_id=known[pick % len(known)])

    @rule()
    def explode(self) -> None:
        """An entry that nobody understands."""
        self.story.send(Plan(), type="explode")

    # -- time

    @rule(seconds=st.sampled_from([0.01, 0.05, 0.3, 1.0]))
    def moment(self, seconds: float) -> None:
        """A little time passes."""
        self.story.theatre.advance(seconds)

    @rule(seconds=st.sampled_from([3.0, 12.0, 40.0]))
    def while_(self, seconds: float) -> None:
        """More time passes than a lease lasts, or an outage is noticed."""
        self.story.theatre.advance(seconds)

    # -- replicas

    @rule(which=which)
    def start(self, which: int) -> None:
        """A process starts."""
        self.story.start(self.story.replicas[which])

    @rule(which=which)
    def kill(self, which: int) -> None:
        """`kill -9`."""
        self.story.kills += 1
        self.story.note_unrest()
        self.story.theatre.do(self.story.replicas[which].kill)

    @precondition(lambda self: any(replica.is_alive for replica in self.story.replicas))
    @rule(which=which)
    def drain(self, which: int) -> None:
        """SIGTERM."""
        self.story.note_unrest()
        if (replica := self.story.replicas[which]).is_alive:
            self.story.theatre.do(replica.drain)

    # -- pods

    @rule(pick=pick, code=st.sampled_from([0, 1, 137]))
    def end_pod(self, pick: int, code: int) -> None:
        """A worker ends by itself."""
        if name := self.story.pod(pick):
            self.story.end_pod(name, code)

    @rule(pick=pick, labels_only=st.booleans())
    def take_away(self, pick: int, labels_only: bool) -> None:
        """Somebody deletes a pod, or strips its labels."""
        if name := self.story.pod(pick):
            self.story.take_away(name, labels_only=labels_only)

    @rule(seconds=st.sampled_from([0.2, 3.0, 12.0]))
    def late_create(self, seconds: float) -> None:
        """The next create gets no answer and is carried out later."""
        self.story.world.late_creates.append(seconds)

    # -- Redis and the API

    @rule(weather=st.sampled_from(["fine", "fine", "refusing", "silent"]))
    def redis(self, weather: str) -> None:
        """Redis goes away, falls silent, or is back."""
        self.story.note_unrest()
        self.story.theatre.do(partial(setattr, self.story.server, "weather", weather))

    @rule(which=which, seconds=st.sampled_from([1.0, 8.0]), work=st.booleans())
    def cut_off(self, which: int, seconds: float, work: bool) -> None:
        """One replica alone loses Redis for a while, perhaps with creates before it that the API does not take yet."""
        replica = self.story.replicas[which]
        replica.is_cut_off = True
        if work:
            replica.refused = frozenset({"create", "delete"})
        self.story.theatre.advance(seconds)
        replica.refused = frozenset()
        self.story.theatre.advance(0.3)
        replica.is_cut_off = False
        self.story.note_unrest()

    @rule(name=st.sampled_from(LOST_ANSWERS))
    def lose_answer(self, name: str) -> None:
        """The next call of that kind is carried out, and its answer gets lost."""
        self.story.server.lose_answer_of.add(name)

    @rule(which=which, trouble=TROUBLES)
    def api(self, which: int, trouble: str) -> None:
        """The API refuses some of a replica's requests, or loses their answers, from now on; or it is well again."""
        self.story.note_unrest()
        self.story.replicas[which].refused = frozenset(trouble.split())


BRIEF = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
"""What the suite does; the profile `proof` does more."""
