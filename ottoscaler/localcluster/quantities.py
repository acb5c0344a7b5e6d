"""Kubernetes quantities ("500m", "128Mi") as numbers, and what a pod asks for in all. Pure."""

from __future__ import annotations

import re
from decimal import Decimal
from math import ceil
from typing import Any

_SUFFIXES = {
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
}
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def parse_quantity(text: str | int | float) -> Decimal:
    """A quantity in its base unit (cores, bytes); raises ValueError naming what was given."""
    number = str(text)
    factor = Decimal(1)
    for suffix, value in _SUFFIXES.items():
        if number.endswith(suffix):
            number, factor = number[: -len(suffix)], value
            break
    if not _NUMBER.fullmatch(number):
        raise ValueError(f"quantity {text!r}: expected a number with an optional suffix, as 500m or 128Mi")
    return Decimal(number) * factor


def as_millicores(text: str | int | float) -> int:
    """CPU in thousandths of a core, rounded up."""
    return ceil(parse_quantity(text) * 1000)


def as_bytes(text: str | int | float) -> int:
    """Memory in bytes, rounded up."""
    return ceil(parse_quantity(text))


def add_quantities(resource: str, quantities: list[str]) -> str:
    """The sum as a quantity: one alone is kept as it was written; CPU in millicores, all else in bytes or Mi."""
    if len(quantities) == 1:
        return quantities[0]
    if resource == "cpu":
        return f"{sum(as_millicores(q) for q in quantities)}m"
    total = sum(as_bytes(q) for q in quantities)
    return f"{total >> 20}Mi" if total % 2**20 == 0 else str(total)


def pod_resources(spec: dict[str, Any], kind: str) -> dict[str, str]:
    """The sum of `kind` ("requests" or "limits") over a pod's containers and its sidecars, per resource."""
    sidecars = [c for c in spec.get("initContainers", []) if c.get("restartPolicy") == "Always"]
    asked: dict[str, list[str]] = {}
    for container in [*spec["containers"], *sidecars]:
        for resource, quantity in container.get("resources", {}).get(kind, {}).items():
            asked.setdefault(resource, []).append(str(quantity))
    return {resource: add_quantities(resource, quantities) for resource, quantities in sorted(asked.items())}
