"""The roster: who is known here, under which epoch, and for how many more there is room."""

from __future__ import annotations

from ottoscaler.spine.roster import Roster
from ottoscaler.stream.base import LANES


def test_an_event_that_was_taken_again_outlasts_its_former_task() -> None:
    """Whoever enters it without knowing its epoch takes nothing back: only the end of the newest epoch takes it off."""
    roster = Roster(10)
    roster.enter("1-1", "work", 2)
    roster.enter("1-1", "work")
    roster.leave("1-1", 1)
    assert "1-1" in roster
    roster.leave("1-1", 2)
    assert "1-1" not in roster


def test_room_that_a_question_may_fill_is_kept_free() -> None:
    """While an answer may bring events, nobody else has the room of their lane; what it did not fill is free again."""
    roster = Roster(3)
    with roster.reserve() as rooms:
        assert rooms == [3, 200, 1000]
        assert [roster.room(lane) for lane in LANES] == [0, 0, 0]
        roster.enter("1-1", "work", 1)
    assert [roster.room(lane) for lane in LANES] == [2, 200, 1000]


def test_every_lane_has_a_bound() -> None:
    """Scalings, those of them that only wait for deletes, scale-downs and pipelines: each has its own number."""
    roster = Roster(2)
    for number in range(1000):
        roster.enter(f"1-{number}", "pipelines", 1)
    for number in range(200):
        roster.enter(f"2-{number}", "control", 1)
    assert [roster.room(lane) for lane in LANES] == [2, 0, 0]
    for number in range(2):
        roster.enter(f"3-{number}", "work", 1)
    assert roster.room("work") == 0
    roster.settle("3-0")
    assert roster.room("work") == 1
    roster.settle("3-1")
    assert roster.room("work") == 0
