"""Who stands between a valid request and the store: the namespace's state, accounts, priorities, Pod Security, quota.

Also refusals on demand: a `Denial` refuses pods by label, as an admission policy or an admission webhook that cannot
be reached would.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from .canonical import canonical_quantity
from .defaults import admit_pod_fields
from .pod_security import restricted_violations
from .quantities import parse_quantity
from .refusals import ApiError, Cause, forbidden, not_found
from .resources import NAMESPACES, PODS, Resource
from .store import NotFound, Store

_ENDED = ("Succeeded", "Failed")
_SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


@dataclass(frozen=True, slots=True)
class Denial:
    """New pods with that label are refused: by a policy, or (`is_webhook_away`) because nobody could be asked."""

    label: str
    value: str
    message: str = "not allowed here"
    name: str = "denied"
    is_webhook_away: bool = False

    def refusal(self, pod_name: str) -> ApiError:
        """The error as it was recorded for either case."""
        if self.is_webhook_away:
            why = (
                f'failed calling webhook "{self.name}": failed to call webhook: Post "https://127.0.0.1:9/x?timeout=2s"'
                ": dial tcp 127.0.0.1:9: connect: connection refused"
            )
            details = {"causes": [{"message": why}]}
            return ApiError(500, "InternalError", f"Internal error occurred: {why}", details=details)
        policy = f"ValidatingAdmissionPolicy '{self.name}' with binding '{self.name}' denied request: {self.message}"
        named: dict[str, Any] = {"name": pod_name, "kind": "pods", "causes": [{"message": policy}]}
        return ApiError(422, "Invalid", f'pods "{pod_name}" is forbidden: {policy}', details=named)


@dataclass(slots=True)
class Admission:
    """The plugins, in the order in which the API asks them."""

    store: Store
    denials: list[Denial] = field(default_factory=list)

    def admit_early(self, resource: Resource, obj: dict[str, Any]) -> None:
        """Before validation: the namespace must be open; a pod gets its account, token, tolerations, priority."""
        if resource.namespaced:
            self._check_namespace(resource, obj)
        if resource.plural == "pods" and obj["spec"].get("containers"):
            value, preemption = self._find_priority(obj)
            admit_pod_fields(obj, value, preemption)
            self._check_account(obj)

    def admit_late(self, resource: Resource, obj: dict[str, Any]) -> None:
        """After validation: refusals on demand, Pod Security, quota."""
        if resource.plural != "pods":
            return
        name, labels = obj["metadata"]["name"], obj["metadata"].get("labels", {})
        for denial in self.denials:
            if labels.get(denial.label) == denial.value:
                raise denial.refusal(name)
        self._check_security(obj)
        self._check_quotas(obj)

    def _check_namespace(self, resource: Resource, obj: dict[str, Any]) -> None:
        namespace = obj["metadata"]["namespace"]
        try:
            found = self.store.get("namespaces", "", namespace)
        except NotFound:
            raise not_found(NAMESPACES, namespace) from None
        if "deletionTimestamp" in found["metadata"]:
            cause = Cause("NamespaceTerminating", f"namespace {namespace} is being terminated", "metadata.namespace")
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise forbidden(resource, obj["metadata"].get("name", ""), why, [cause])

    def _check_account(self, pod: dict[str, Any]) -> None:
        account, namespace = pod["spec"]["serviceAccountName"], pod["metadata"]["namespace"]
        try:
            self.store.get("serviceaccounts", namespace, account)
        except NotFound:
            why = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
            raise forbidden(PODS, pod["metadata"].get("name", ""), why) from None

    def _find_priority(self, pod: dict[str, Any]) -> tuple[int, str]:
        name = pod["spec"].get("priorityClassName")
        if not name:
            return 0, "PreemptLowerPriority"
        if name in _SYSTEM_PRIORITIES:
            return _SYSTEM_PRIORITIES[name], "PreemptLowerPriority"
        try:
            found = self.store.get("priorityclasses", "", name)
        except NotFound:
            why = f"no PriorityClass with name {name} was found"
            raise forbidden(PODS, pod["metadata"].get("name", ""), why) from None
        return int(found.get("value", 0)), str(found.get("preemptionPolicy", "PreemptLowerPriority"))

    def _check_security(self, pod: dict[str, Any]) -> None:
        namespace = self.store.get("namespaces", "", pod["metadata"]["namespace"])
        level = namespace["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce", "privileged")
        violations = restricted_violations(pod["spec"]) if level == "restricted" else []
        if violations:
            why = f'violates PodSecurity "restricted:latest": {", ".join(violations)}'
            raise forbidden(PODS, pod["metadata"]["name"], why)

    def _check_quotas(self, pod: dict[str, Any]) -> None:
        namespace = pod["metadata"]["namespace"]
        quotas = self.store.list("resourcequotas", namespace)
        if not quotas:
            return
        pods = [p for p in self.store.list("pods", namespace) if p.get("status", {}).get("phase") not in _ENDED]
        for quota in quotas:
            self._check_quota(quota, pod, pods)

    def _check_quota(self, quota: dict[str, Any], pod: dict[str, Any], pods: list[Any]) -> None:
        asked, used, limited = [], [], []
        for name, hard in sorted(quota.get("spec", {}).get("hard", {}).items()):
            wants, has = _usage(name, pod), sum((_usage(name, other) for other in pods), Decimal())
            if wants and wants + has > parse_quantity(hard):
                asked.append(f"{name}={_written(name, wants)}")
                used.append(f"{name}={_written(name, has)}")
                limited.append(f"{name}={hard}")
        if asked:
            why = (
                f"exceeded quota: {quota['metadata']['name']}, requested: {','.join(asked)}, "
                f"used: {','.join(used)}, limited: {','.join(limited)}"
            )
            raise forbidden(PODS, pod["metadata"]["name"], why)


def _usage(name: str, pod: dict[str, Any]) -> Decimal:
    """How much of a quota's item one pod takes."""
    if name in ("pods", "count/pods"):
        return Decimal(1)
    kind, _, resource = name.rpartition(".")
    amounts = (
        container.get("resources", {}).get(kind or "requests", {}).get(resource, "0")
        for container in pod["spec"]["containers"]
    )
    return sum((parse_quantity(amount) for amount in amounts), Decimal())


def _written(name: str, amount: Decimal) -> str:
    return canonical_quantity(f"{amount / 1024:f}Ki" if name.endswith("memory") else f"{amount:f}")
