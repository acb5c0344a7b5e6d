"""Quantities checked and written back the way the API does it: "1000" of cores becomes "1k", "1024Mi" one "1Gi"."""

from __future__ import annotations

import re

from .quantities import parse_quantity

PATTERN = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"  # as the API's own message quotes it

_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_FORM = re.compile(r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[KMGTPE]i|[numkMGTPE]?|[eE][+-]?[0-9]+)$")


class BadQuantity(ValueError):
    """The text is no quantity."""


def canonical_quantity(text: str | int | float) -> str:
    """The same quantity, whole, with the largest suffix of its family; raises BadQuantity."""
    written = str(text)
    if not _FORM.match(written):
        raise BadQuantity(f"quantities must match the regular expression '{PATTERN}'")
    value = parse_quantity(written)
    if value == 0:
        return "0"
    if written.endswith("i") and abs(value) >= 1024:
        for suffix, power in reversed(_BINARY.items()):
            if value % (1 << power) == 0:
                return f"{int(value) >> power}{suffix}"
    for suffix, power in reversed(_DECIMAL.items()):
        scaled = value.scaleb(-power)
        if scaled == scaled.to_integral_value():
            return f"{int(scaled)}{suffix}"
    return f"{int(value.scaleb(9).to_integral_value(rounding='ROUND_UP'))}n"
