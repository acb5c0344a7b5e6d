"""CPU and memory of the programs while something is measured, and which of them was the limit."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

SATURATED = 0.85
"""A program that has one thread of Python counts as at its limit from this share of one core on."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used between two looks: seconds of wall clock, of each program's CPU, and of all CPUs together."""

    seconds: float
    cpu: Mapping[str, float]
    machine: float
    cpus: int

    def share(self, program: str) -> float:
        """How much of one core a program used, from 0 to 1 (more with several threads)."""
        return self.cpu[program] / self.seconds

    def words(self) -> str:
        """The shares in words, with what nobody of ours used, and who was at the limit."""
        shares = ", ".join(f"{name} {self.share(name):.0%}" for name in self.cpu)
        others = max(0.0, self.machine - sum(self.cpu.values())) / self.seconds
        return f"CPU of one core: {shares}, others on this machine {others:.0%}. {self.limit()}"

    def limit(self) -> str:
        """A sentence on what kept it from being faster, as far as the CPU tells."""
        if self.cpu.get("cluster", 0) / self.seconds >= SATURATED:
            return "The stand-in API was at its limit."
        if any(self.share(name) >= SATURATED for name in self.cpu if name.startswith("serve")):
            return "The scaler was at its limit."
        if self.machine / self.seconds >= SATURATED * self.cpus:
            return "The machine was at its limit."
        return "No CPU was at its limit."


class Meter:
    """Measures from its making on; `programs` are process ids by name."""

    def __init__(self, programs: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in programs.items()}
        self._started = time.monotonic()
        self._machine = machine_seconds()
        self._before = {name: cpu_seconds(process) for name, process in self._processes.items()}

    def add(self, name: str, pid: int) -> None:
        """Measure a program that was started since: all that it has used counts."""
        self._processes[name], self._before[name] = psutil.Process(pid), 0.0

    def stop(self) -> Usage:
        """What was used until now."""
        used = {name: cpu_seconds(process) - self._before[name] for name, process in self._processes.items()}
        busy = machine_seconds() - self._machine
        return Usage(time.monotonic() - self._started, used, busy, psutil.cpu_count() or 1)


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def machine_seconds() -> float:
    """Time that all CPUs together were busy so far, other guests' use of them (steal) included."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def memory_mib(pid: int) -> float:
    """Resident memory now, MiB."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def peak_memory_mib(pid: int) -> float:
    """The most resident memory so far, MiB (VmHWM; where there is no /proc: what it is now)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return memory_mib(pid)
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
