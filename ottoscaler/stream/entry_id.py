"""Ids of stream entries: `<milliseconds>-<sequence>`, as text and as numbers that sort."""

from __future__ import annotations

Id = tuple[int, int]


def parse_id(text: str) -> Id:
    """`1756659802903-0` as numbers, in the order in which entries were added; a missing sequence is 0."""
    milliseconds, _, sequence = text.partition("-")
    return int(milliseconds), int(sequence or 0)


def format_id(id_: Id) -> str:
    """The text of an id."""
    return f"{id_[0]}-{id_[1]}"
