"""What one setting is, and the groups' way of saying it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ottoscaler.parsing import Kind

YEAR = 31_536_000.0


class Field(NamedTuple):
    """What a setting is: kind, default as one would write it (None: unset), effect, the words for a found default."""

    kind: Kind
    default: str | Callable[[Mapping[str, str]], str] | None
    effect: str
    shown: str = ""

    @property
    def default_shown(self) -> str:
        """The default as help and docs show it; empty for a setting that is unset by default."""
        return self.shown or (self.default if isinstance(self.default, str) else "")
