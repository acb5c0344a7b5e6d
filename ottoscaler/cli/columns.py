"""Tables as kubectl prints them: upper-case headers, columns three spaces apart, no lines."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest

GAP = "   "


class Columns:
    """Rows under a header, each column at least `least` wide; widths grow with what was seen, for later rows."""

    def __init__(self, header: Sequence[str], least: Sequence[int] = ()) -> None:
        self._header = header
        self._widths = [max(len(name), width or 0) for name, width in zip_longest(header, least)]
        self._has_begun = False

    def lines(self, rows: Iterable[Sequence[str]]) -> list[str]:
        """The rows as lines, with the header before the first ones; names come from others, so what does not print is
        escaped.
        """
        found = [[shown(value) or "-" for value in row] for row in rows]
        for row in found:
            self._widths = [max(width, len(value)) for width, value in zip(self._widths, row, strict=True)]
        lines = found if self._has_begun else [list(self._header), *found]
        self._has_begun = True
        return [GAP.join(map(str.ljust, row, self._widths)).rstrip() for row in lines]


def shown(text: str) -> str:
    """A text as it may go to a terminal: what does not print is escaped."""
    return text if text.isprintable() else repr(text)[1:-1]


def shown_age(seconds: float) -> str:
    """An age as kubectl shows it: 45s, 3m5s, 12m, 5h10m, 3d."""
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return f"{minutes}m{whole % 60}s" if whole % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    return f"{hours}h" if days < 2 else f"{days}d"
