"""Containers without a process: a pod whose annotations say how long it runs and how it ends.

| annotation | meaning | default |
|---|---|---|
| `ottoscaler.local/simulate` | "true" switches it on | off |
| `ottoscaler.local/duration` | seconds until it ends by itself | 0 |
| `ottoscaler.local/exit-code` | its exit code then | 0 |
| `ottoscaler.local/reason` | the terminated reason, as OOMKilled | Completed or Error |
| `ottoscaler.local/start-delay` | seconds from creation of the sandbox to the start | 0 |
| `ottoscaler.local/log-lines` | lines written, evenly spread over the duration | 0 |
| `ottoscaler.local/ignores-term` | "true": only the end of the grace stops it (137, else 143) | false |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from ottoscaler.localcluster.environment import ConfigError
from ottoscaler.localcluster.logs import ContainerLog

PREFIX = "ottoscaler.local/"


@dataclass(frozen=True, slots=True)
class Simulation:
    """How a simulated container behaves; times in seconds."""

    duration: float = 0.0
    exit_code: int = 0
    reason: str = ""
    start_delay: float = 0.0
    log_lines: int = 0
    ignores_term: bool = False


def find_simulation(pod: dict[str, Any]) -> Simulation | None:
    """What the pod's annotations ask for, None for a real pod; raises ConfigError naming annotation and value."""
    annotations = pod["metadata"].get("annotations") or {}
    if annotations.get(PREFIX + "simulate") != "true":
        return None
    return Simulation(
        duration=_number(annotations, "duration", float, 0.0, "a number of seconds"),
        exit_code=_number(annotations, "exit-code", int, 0, "a whole number"),
        reason=annotations.get(PREFIX + "reason", ""),
        start_delay=_number(annotations, "start-delay", float, 0.0, "a number of seconds"),
        log_lines=_number(annotations, "log-lines", int, 0, "a whole number"),
        ignores_term=annotations.get(PREFIX + "ignores-term") == "true",
    )


def _number(annotations: dict[str, str], name: str, parse: Callable[[str], Any], default: Any, expected: str) -> Any:
    text = annotations.get(PREFIX + name)
    if text is None:
        return default
    try:
        value = parse(text)
    except ValueError:
        value = -1
    if not 0 <= value < 1e9:
        raise ConfigError(f'annotation {PREFIX}{name}: "{text}": expected {expected}, not negative')
    return value


class SimulatedProcess:
    """Stands where a process group would stand; `run_simulated` owns it."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.life = trio.CancelScope()
        self.stopped_by = 0  # the signal that ended it
        self.out_of_memory = False

    def request_stop(self, grace: float) -> None:
        """End at once with 143, or after the grace with 137 where the simulation ignores SIGTERM."""
        self.stopped_by = 9 if self.simulation.ignores_term else 15
        end = trio.current_time() + (grace if self.simulation.ignores_term else 0)
        self.life.deadline = min(self.life.deadline, end)

    def kill(self, *, out_of_memory: bool = False) -> None:
        """End at once with 137."""
        self.out_of_memory = out_of_memory
        self.stopped_by = 9
        self.life.deadline = trio.current_time()


async def run_simulated(
    simulation: Simulation, log: ContainerLog, started: Callable[[SimulatedProcess], None]
) -> tuple[int, str]:
    """Live as long as the simulation says, or until stopped; (exit code, reason or "")."""
    process = SimulatedProcess(simulation)
    started(process)
    with process.life:
        pause = simulation.duration / max(simulation.log_lines, 1)
        for line in range(1, simulation.log_lines + 1):
            log.feed("stdout", b"line %d\n" % line)
            await trio.sleep(pause)
        if not simulation.log_lines:
            await trio.sleep(simulation.duration)
    if process.life.cancelled_caught:
        return 128 + process.stopped_by, "OOMKilled" if process.out_of_memory else ""
    return simulation.exit_code, simulation.reason
