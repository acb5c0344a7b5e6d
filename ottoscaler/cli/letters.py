"""Dead letters as commands see them: read page by page, found by either id, fit to be shown."""

import re
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from ottoscaler.cli.columns import shown
from ottoscaler.errors import FixYourCall
from ottoscaler.refusals import REFUSALS

if TYPE_CHECKING:
    from ottoscaler.stream.base import Stream

Found = tuple[str, Mapping[str, str]]
"""The id and the fields of a dead letter."""

PAGE = 200
ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})", re.ASCII)


class BadLetter(FixYourCall):
    """An id, a cause, or a line of an export, that cannot be what it should be; the message is a whole sentence."""


def is_id(text: str) -> bool:
    """Whether Redis takes it for the id of an entry: two whole numbers of 64 bits."""
    found = ID.fullmatch(text)
    return found is not None and all(int(number) < 2**64 for number in found.groups())


def check_cause(cause: str) -> None:
    """Raise BadLetter where no dead letter can have this cause; empty stands for all."""
    if cause and cause not in REFUSALS:
        raise BadLetter(f"--cause is {cause!r}, expected one of {', '.join(REFUSALS)}")


async def read_letters(stream: "Stream", after: str = "0", cause: str = "") -> AsyncIterator[list[Found]]:
    """The dead letters behind an id, of one cause or of all, in pages; ends with the last that there was at the start
    or later. A page may be empty.
    """
    while page := await stream.read_entries("dlq", after, PAGE, 0):
        after = page[-1][0]
        yield [(id_, fields) for id_, fields in page if cause in ("", fields.get("cause"))]


async def find_letter(stream: "Stream", wanted: str) -> Found | None:
    """The dead letter of that id, or of the event of that id; BadLetter where these are two letters."""
    if not is_id(wanted):
        raise BadLetter(f"ID is {wanted!r}, expected the id of a dead letter or of its event, such as 1756659802903-0")
    found = [
        (id_, fields)
        async for page in read_letters(stream)
        for id_, fields in page
        if wanted in (id_, fields.get("event_id"))
    ]
    if len(found) > 1:
        names = " and ".join(f"{id_} (of the event {fields.get('event_id')})" for id_, fields in found)
        raise BadLetter(f"{wanted} means more than one dead letter: {names}; name the one by its other id")
    return found[0] if found else None


def shown_entry(text: str) -> list[tuple[str, str]]:
    """The names and values of an original entry, fit for a terminal; bytes that are no text as `b'…'`."""
    from ottoscaler.events import load_entry

    return [(_shown_bytes(name), _shown_bytes(value)) for name, value in load_entry(text)]


def _shown_bytes(raw: bytes) -> str:
    try:
        return shown(raw.decode())
    except UnicodeDecodeError:
        return repr(raw)
