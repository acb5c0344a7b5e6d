"""Patterns with stars: `*` is any text without a slash, `**` any text at all. Pure.

A match takes time in proportion to the text, whatever the pattern: the text comes from strangers, and the usual regular
expression of many stars can be kept busy for hours by a text made for it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import lru_cache
from typing import NamedTuple


class _Tokens(NamedTuple):
    """A pattern as masks, bit i = its i-th token: `of` those that are this character, `stars` and `wide` (`**`)."""

    of: dict[str, int]
    stars: int
    wide: int
    end: int


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text fits the pattern.

    All places in the pattern where one may be after each character are kept side by side as bits, so nothing is ever
    tried again (Thompson's simulation).
    """
    tokens = _tokens(pattern)
    places = _skip_stars(1, tokens)
    for character in text:
        stay = places & (tokens.wide if character == "/" else tokens.stars)
        places = _skip_stars((places & tokens.of.get(character, 0)) << 1 | stay, tokens)
        if not places:
            return False
    return bool(places & tokens.end)


def _skip_stars(places: int, tokens: _Tokens) -> int:
    """A star may stand for nothing; two never stand side by side."""
    return places | (places & tokens.stars) << 1


@lru_cache(maxsize=1024)
def _tokens(pattern: str) -> _Tokens:
    parts = re.findall(r"\*+|[^*]", pattern, re.DOTALL)
    of: defaultdict[str, int] = defaultdict(int)
    stars = wide = 0
    for place, part in enumerate(parts):
        if part[0] == "*":
            stars |= 1 << place
            wide |= (len(part) > 1) << place
        else:
            of[part] |= 1 << place
    return _Tokens(dict(of), stars, wide, 1 << len(parts))
