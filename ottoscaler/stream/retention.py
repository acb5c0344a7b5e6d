"""What the closing script keeps: results by number and bytes, and whether closed entries leave the event stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Trim = Literal["auto", "on", "off"]


@dataclass(frozen=True, slots=True)
class Retention:
    """Limits of the results stream, and `REDIS_TRIM` for the event stream (`auto`: while ours is its only group)."""

    results_keep: int = 100_000
    results_max_bytes: int = 256 * 1024 * 1024
    trim: Trim = "auto"
