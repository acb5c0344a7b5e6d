"""The rules of `promtool check metrics` (Prometheus' promlint), for where no promtool is installed.

`lint` reads an exposition in the text format and names each problem, in promtool's words. The rules and the lists of
units are those of client_golang's `prometheus/testutil/promlint`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

BASE_UNITS = ("amperes", "bytes", "celsius", "grams", "joules", "kelvin", "meters", "metres", "seconds", "volts")
UNITS = {
    **{unit: unit for unit in BASE_UNITS},
    **dict.fromkeys(("minutes", "hours", "days", "weeks"), "seconds"),
    **dict.fromkeys(("fahrenheit", "rankine"), "celsius"),
    **dict.fromkeys(("inches", "yards", "miles"), "meters"),
    **dict.fromkeys(("pounds", "ounces"), "grams"),
    "kelvins": "kelvin",
    "bits": "bytes",
    "calories": "joules",
}
"""Each unit that is known, and the one to use for it."""
PREFIXES = [
    "pico",
    "nano",
    "micro",
    "milli",
    "centi",
    "deci",
    "deca",
    "hecto",
    "kilo",
    "kibi",
    "mega",
    "mibi",
    "giga",
    "gibi",
    "tera",
    "tebi",
    "peta",
    "pebi",
]
ABBREVIATIONS = ["s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"]
TYPES = ("counter", "gauge", "summary", "histogram", "gauge_histogram")
PARTS = {"histogram": ("_bucket", "_count", "_sum"), "summary": ("_count", "_sum")}
SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:{(.*)})? [^ ]+")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\.)*)"(?:,|$)')


@dataclass
class Family:
    """A metric: its name as it is in the text, and the labels of each of its samples."""

    name: str
    type: str = "untyped"
    help: str = ""
    samples: list[tuple[str, tuple[tuple[str, str], ...]]] = field(default_factory=list)

    @property
    def labels(self) -> set[str]:
        """Names of labels that it has in any sample, but for those that its type brings."""
        own = {"histogram": {"le"}, "summary": {"quantile"}}.get(self.type, set())
        return {name for _, pairs in self.samples for name, _ in pairs} - own


def lint(exposition: str) -> list[str]:
    """All problems, as `name: what is wrong`. Raises ValueError for a line that is none of the format."""
    families = _read(exposition)
    return [f"{family.name}: {problem}" for family in families for rule in RULES for problem in rule(family)]


def _read(exposition: str) -> list[Family]:
    families: dict[str, Family] = {}
    for line in exposition.splitlines():
        if line.startswith(("# HELP ", "# TYPE ")):
            _, kind, name, text = (*line.split(" ", 3), "")[:4]
            family = families.setdefault(name, Family(name))
            setattr(family, kind.lower(), text)
        elif line and not line.startswith("#"):
            _add_sample(families, line)
    return list(families.values())


def _add_sample(families: dict[str, Family], line: str) -> None:
    if not (sample := SAMPLE.fullmatch(line)):
        raise ValueError(f"{line!r} is no sample")
    name, text = sample[1], sample[2] or ""
    pairs = LABEL.findall(text)
    if LABEL.sub("", text):
        raise ValueError(f"{line!r} has labels that cannot be read")
    owners = [name, *(name.removesuffix(part) for part in PARTS["histogram"] if name.endswith(part))]
    known = (families[owner] for owner in owners if owner in families and (owner == name or _has_part(families, owner)))
    family = next(known, None) or families.setdefault(name, Family(name))
    family.samples.append((name, tuple(sorted(pairs))))


def _has_part(families: dict[str, Family], owner: str) -> bool:
    return families[owner].type in PARTS


def _help(family: Family) -> Iterator[str]:
    if not family.help:
        yield "no help text"


def _units(family: Family) -> Iterator[str]:
    for word in family.name.split("_"):
        bare = next((word.removeprefix(prefix) for prefix in PREFIXES if word.startswith(prefix)), word)
        for unit in (word, bare):
            if unit in UNITS:
                if word != UNITS[unit]:
                    yield f'use base unit "{UNITS[unit]}" instead of "{word}"'
                return


def _total(family: Family) -> Iterator[str]:
    has_total = family.name.endswith("_total")
    if family.type == "counter" and not has_total:
        yield 'counter metrics should have "_total" suffix'
    if family.type not in ("counter", "untyped") and has_total:
        yield 'non-counter metrics should not have "_total" suffix'


def _reserved_parts(family: Family) -> Iterator[str]:
    for part, types in {"_bucket": ("histogram",), "_count": tuple(PARTS), "_sum": tuple(PARTS)}.items():
        if family.type not in (*types, "untyped") and family.name.endswith(part):
            yield f'metrics of type {family.type} should not have "{part}" suffix'
    for label, type_ in {"le": "histogram", "quantile": "summary"}.items():
        if family.type not in (type_, "untyped") and label in family.labels:
            yield f'non-{type_} metrics should not have "{label}" label'


def _type_in_name(family: Family) -> Iterator[str]:
    name = family.name.lower()
    for type_ in TYPES:
        if f"_{type_}_" in name or name.endswith(f"_{type_}"):
            yield f"metric name should not include type '{type_}'"


def _reserved_chars(family: Family) -> Iterator[str]:
    if ":" in family.name:
        yield "metric names should not contain ':'"


def _camel_case(family: Family) -> Iterator[str]:
    if re.search(r"[a-z][A-Z]", family.name):
        yield "metric names should be written in 'snake_case' not 'camelCase'"
    for label in sorted(family.labels):
        if re.search(r"[a-z][A-Z]", label):
            yield "label names should be written in 'snake_case' not 'camelCase'"


def _abbreviations(family: Family) -> Iterator[str]:
    name = family.name.lower()
    if any(f"_{short}_" in name or name.endswith(f"_{short}") for short in ABBREVIATIONS):
        yield "metric names should not contain abbreviated units"


def _duplicates(family: Family) -> Iterator[str]:
    if any(count > 1 for count in Counter(family.samples).values()):
        yield "metric not unique"


RULES: tuple[Callable[[Family], Iterator[str]], ...] = (
    _help,
    _units,
    _total,
    _reserved_parts,
    _type_in_name,
    _reserved_chars,
    _camel_case,
    _abbreviations,
    _duplicates,
)
