"""Whether a text of the field `timestamp` says when: Unix seconds, or a date and time of RFC 3339. Pure."""

from __future__ import annotations

import re
from datetime import datetime

_UNIX_SECONDS = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE]\+?[0-9]{1,2})?", re.ASCII)
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)


def is_timestamp(text: str) -> bool:
    """Whether it is a time in one of the two forms."""
    return bool(_UNIX_SECONDS.fullmatch(text)) or _is_rfc3339(text)


def _is_rfc3339(text: str) -> bool:
    """Whether it is a date, a time and an offset (section 5.6), at a time that there was; leap seconds are unknown."""
    if not _RFC3339.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text.upper())
    except ValueError:  # the 30th of February
        return False
    return True
