"""What is told of chaos: one report for each seed, and the tables made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.table import Table


@dataclass
class Report:
    """One seed: what was done and what came of it. `broken` is the promise that broke, empty where all held."""

    kind: str
    seed: int
    harm: Counter[str] = field(default_factory=Counter)
    events: int = 0
    workers: int = 0
    replicas: int = 0
    seconds: float = 0.0
    longest_wait: float = 0.0
    """The longest that an event waited for its end after it was added and all harm had ended (s)."""
    broken: str = ""
    folder: str = ""

    @property
    def harm_in_words(self) -> str:
        """Kinds and numbers, by kind."""
        return ", ".join(f"{name} {count}" if count > 1 else name for name, count in sorted(self.harm.items()))

    def in_words(self) -> str:
        """One line."""
        verdict = "BROKEN" if self.broken else "ok"
        return f"{self.seed:>6} {verdict:6} {self.seconds:5.1f} s, {self.workers} workers: {self.harm_in_words}"


def heavy_table(reports: Iterable[Report]) -> Table:
    """A row for each seed, and what they did together."""
    reports = list(reports)
    table = Table(title="heavy chaos", show_footer=True)
    broken = [report for report in reports if report.broken]
    totals = _total(reports)
    waits = max((report.longest_wait for report in reports), default=0.0)
    table.add_column("seed", f"{len(reports)}", justify="right")
    table.add_column("replicas", "", justify="right")
    table.add_column("events", f"{sum(report.events for report in reports)}", justify="right")
    table.add_column("workers", f"{sum(report.workers for report in reports)}", justify="right")
    table.add_column("waited", f"{waits:.1f} s", justify="right")
    table.add_column("took", f"{sum(report.seconds for report in reports):.0f} s", justify="right")
    table.add_column("harm", ", ".join(f"{name} {count}" for name, count in totals.most_common()))
    table.add_column("verdict", f"{len(broken)} broke a promise")
    for report in reports:
        table.add_row(
            str(report.seed),
            str(report.replicas),
            str(report.events),
            str(report.workers),
            f"{report.longest_wait:.1f} s",
            f"{report.seconds:.1f} s",
            report.harm_in_words,
            "[red]BROKEN" if report.broken else "all held",
        )
    return table


def light_table(kind: str, reports: Iterable[Report], seconds: float) -> Table:
    """What thousands of light or aimed seeds did together; `seconds` in real time."""
    reports = list(reports)
    table = Table(title=f"{kind} chaos: {len(reports):,} seeds in {seconds:.0f} s")
    table.add_column("what")
    table.add_column("how often", justify="right")
    table.add_row("events", f"{sum(report.events for report in reports):,}")
    table.add_row("workers run", f"{sum(report.workers for report in reports):,}", end_section=True)
    for name, count in _total(reports).most_common():
        table.add_row(name, f"{count:,}")
    table.add_section()
    table.add_row("seeds that broke a promise", f"{sum(1 for report in reports if report.broken):,}")
    return table


def _total(reports: Iterable[Report]) -> Counter[str]:
    return sum((report.harm for report in reports), Counter())
