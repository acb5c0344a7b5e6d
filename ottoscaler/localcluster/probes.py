"""Liveness probes of the exec kind; readiness and startup probes, and other kinds, are not done here."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import trio

from ottoscaler.localcluster.process import ContainerProcess, ProcessPlan

if TYPE_CHECKING:
    from ottoscaler.localcluster.pod_worker import PodWorker

Json = dict[str, Any]


async def check_liveness(pod: PodWorker, container: Json, plan: ProcessPlan, process: ContainerProcess) -> None:
    """Run the probe's command again and again; after too many failures in a row stop the container."""
    probe = container["livenessProbe"]
    failures = 0
    await trio.sleep(probe.get("initialDelaySeconds", 0))
    while failures < probe.get("failureThreshold", 3):
        await trio.sleep(probe.get("periodSeconds", 10))
        output = await _failure_of(probe["exec"]["command"], plan, probe.get("timeoutSeconds", 1))
        failures = 0 if output is None else failures + 1
        if output is not None:
            pod.emit("Unhealthy", f"Liveness probe failed: {output}", warning=True, container=container)
    name = container["name"]
    pod.emit("Killing", f"Container {name} failed liveness probe, will be restarted", container=container)
    grace = probe.get("terminationGracePeriodSeconds", pod.spec.get("terminationGracePeriodSeconds", 30))
    process.request_stop(float(grace))


async def _failure_of(command: list[str], plan: ProcessPlan, timeout: float) -> str | None:
    """What a failing probe wrote, None where it succeeded."""
    with trio.move_on_after(timeout):
        try:
            done = await trio.run_process(
                command,
                env=plan.full_environment(),
                cwd=plan.directory,
                stdin=b"",
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
                start_new_session=True,
            )
        except OSError as error:
            return str(error)
        return None if done.returncode == 0 else done.stdout.decode(errors="replace")
    return f"command timed out: {command[0]!r} timed out after {timeout}s"
