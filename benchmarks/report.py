"""Results for people, as a table, and for programs, as a JSON file that also says where and when."""

from __future__ import annotations

import math
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure, Result

VERDICTS = {True: "[green]reached[/]", False: "[red]missed[/]", None: ""}


def print_result(console: Console, name: str, result: Result) -> None:
    """The figures of one benchmark, aims beside them."""
    table = Table(title=name, title_justify="left", title_style="bold")
    for header, justify in (("figure", "left"), ("measured", "right"), ("aim", "right"), ("", "left")):
        table.add_column(header, justify=justify)  # type: ignore[arg-type]  # a literal, but not to mypy
    for figure in result.figures:
        table.add_row(figure.name, f"{shown(figure.value)} {figure.unit}", _aim(figure), VERDICTS[figure.is_met])
    console.print(table)
    for note in result.notes:
        console.print(f"  {note}", style="dim")


def _aim(figure: Figure) -> str:
    if figure.aim is None:
        return ""
    return f"{'≥' if figure.more_is_better else '≤'} {shown(figure.aim)} {figure.unit}"


def shown(value: float) -> str:
    """A number with three digits that count; a dash where there was nothing to measure (NaN)."""
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def write_result(folder: Path, name: str, result: Result) -> Path:
    """Write `NAME.json` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(as_document(name, result))) + b"\n")
    return path


def as_document(name: str, result: Result) -> dict[str, Any]:
    """The content of the file."""
    return {
        "benchmark": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpus": psutil.cpu_count(),
            "cpu_model": cpu_model(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "system": platform.platform(),
            "python": platform.python_version(),
            "load_of_the_last_minute": psutil.getloadavg()[0],
        },
        "parameters": result.parameters,
        "figures": [
            {"name": each.name, "value": each.value, "unit": each.unit, "aim": each.aim, "is_met": each.is_met}
            for each in result.figures
        ],
        "notes": list(result.notes),
    }


def cpu_model() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
