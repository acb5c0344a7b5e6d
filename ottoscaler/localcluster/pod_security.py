"""The Pod Security standard "restricted": what a pod's spec violates, in the words of the API's admission plugin."""

from __future__ import annotations

from typing import Any


def restricted_violations(spec: dict[str, Any]) -> list[str]:
    """One phrase per rule that is broken; empty where the pod may run."""
    containers = [*spec.get("initContainers", []), *spec["containers"]]
    pod = spec.get("securityContext") or {}
    found = [
        _host_namespaces(spec),
        _phrase(
            "privileged",
            [c for c in containers if _context(c).get("privileged")],
            "must not set securityContext.privileged=true",
        ),
        _host_paths(spec),
        _phrase(
            "allowPrivilegeEscalation != false",
            [c for c in containers if _context(c).get("allowPrivilegeEscalation") is not False],
            "must set securityContext.allowPrivilegeEscalation=false",
        ),
        _phrase(
            "unrestricted capabilities",
            [c for c in containers if "ALL" not in (_context(c).get("capabilities") or {}).get("drop", [])],
            'must set securityContext.capabilities.drop=["ALL"]',
        ),
        _phrase(
            "runAsNonRoot != true",
            [c for c in containers if not _context(c).get("runAsNonRoot", pod.get("runAsNonRoot", False))],
            "must set securityContext.runAsNonRoot=true",
            pod="pod or ",
        ),
        _phrase(
            "runAsUser=0",
            [c for c in containers if _context(c).get("runAsUser", pod.get("runAsUser")) == 0],
            "must not set securityContext.runAsUser=0",
            pod="pod or ",
        ),
        _phrase(
            "seccompProfile",
            [c for c in containers if not _is_confined(_context(c).get("seccompProfile") or pod.get("seccompProfile"))],
            'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"',
            pod="pod or ",
        ),
    ]
    return [phrase for phrase in found if phrase]


def _context(container: dict[str, Any]) -> dict[str, Any]:
    return container.get("securityContext") or {}


def _is_confined(profile: dict[str, Any] | None) -> bool:
    return (profile or {}).get("type") in ("RuntimeDefault", "Localhost")


def _phrase(rule: str, containers: list[dict[str, Any]], advice: str, pod: str = "") -> str:
    if not containers:
        return ""
    named = ", ".join(f'"{container["name"]}"' for container in containers)
    return f"{rule} ({pod}container{'s' if len(containers) > 1 else ''} {named} {advice})"


def _host_namespaces(spec: dict[str, Any]) -> str:
    used = [f"{name}=true" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    return f"host namespaces ({', '.join(used)})" if used else ""


def _host_paths(spec: dict[str, Any]) -> str:
    named = [f'"{volume["name"]}"' for volume in spec.get("volumes", []) if "hostPath" in volume]
    if not named:
        return ""
    return f"hostPath volumes (volume{'s' if len(named) > 1 else ''} {', '.join(named)})"
