"""The roster: who is known here, under which epoch, and for how many more there is room."""

from __future__ import annotations

from ottoscaler.spine.roster import Roster


def test_an_event_that_was_taken_again_outlasts_its_former_task() -> None:
    """Whoever enters it without knowing its epoch takes nothing back: only the end of the newest epoch takes it off."""
    roster = Roster(10)
    roster.enter("1-1", "work", 2)
    roster.enter("1-1", "work")
    roster.leave("1-1", 1)
    assert "1-1" in roster
    roster.leave("1-1", 2)
    assert "1-1" not in roster


def test_every_lane_has_a_bound() -> None:
    """Scalings, those of them that only wait for deletes, scale-downs and pipelines: each has its own number."""
    roster = Roster(2)
    for number in range(1000):
        roster.enter(f"1-{number}", "pipelines", 1)
    for number in range(200):
        roster.enter(f"2-{number}", "control", 1)
    assert roster.rooms() == {"work": 2, "control": 0, "pipelines": 0}
    for number in range(2):
        roster.enter(f"3-{number}", "work", 1)
    assert roster.rooms()["work"] == 0
    roster.settle("3-0")
    assert roster.rooms()["work"] == 1
    roster.settle("3-1")
    assert roster.rooms()["work"] == 0
