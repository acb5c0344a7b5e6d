"""Entries with more fields than any of ours: refused with their number, while everything beside them goes on."""

from __future__ import annotations

from tests.process.bench import Bench
from tests.process.together import together


@together
async def test_ten_thousand_fields_are_a_dead_letter(bench: Bench) -> None:
    """What a foreign producer adds with 10,000 fields ends as one dead letter that says so; with 3,900 it runs, and the
    events between them do.
    """
    async with bench.place() as place, place.serve() as serving:
        place.open_gate()
        for fields in (3900 - 2, 10_000):
            place.send(pods=1)
            named = [word for number in range(fields) for word in (f"f{number}", "x")]
            words = ("type", "scale_up", "pod_count", 1, *named)
            event_id = place.command("XADD", f"{place.prefix}:events", "*", *words).decode()
            if fields < 3900:
                place.events[event_id] = 1
            else:
                place.refused.append(event_id)
        await place.judge()
        (letter,) = place.endings("dlq")
        assert letter["cause"] == "TooManyFields"
        assert letter["reason"] == "the entry has 10002 fields, expected at most 3900"
        assert not serving.said("crashed")
