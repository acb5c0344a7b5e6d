"""Who asks, and what they may do: tokens, Roles, and the recorded 401 and 403."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .exchange import Request, User
from .refusals import ApiError, forbidden
from .resources import Resource

ANONYMOUS = User("system:anonymous")
_PUBLIC_PATHS = ("/healthz", "/livez", "/readyz", "/version")


@dataclass(frozen=True, slots=True)
class Action:
    """What somebody wants to do to a resource; `namespace` is "" for all of them or none."""

    verb: str
    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def resource_path(self) -> str:
        """The resource as rules name it: `pods`, `pods/log`."""
        return f"{self.resource.plural}/{self.subresource}" if self.subresource else self.resource.plural


@dataclass(frozen=True, slots=True)
class Grant:
    """A Role bound to one user: `rules` as they stand in a Role, valid in one namespace, or in all for ""."""

    user: str
    role: str
    namespace: str
    rules: tuple[dict[str, Any], ...]


@dataclass(slots=True)
class AccessControl:
    """The users and their rights. The first token is the administrator's, who may do everything."""

    admin_token: str
    users: dict[str, User] = field(default_factory=dict)
    grants: list[Grant] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.users[self.admin_token] = User("kubernetes-admin", is_admin=True)

    def add_user(self, token: str, name: str, role: dict[str, Any] | None = None, namespace: str = "") -> None:
        """Know one more token. `role` is a Role or ClusterRole object; without one the user may do nothing."""
        self.users[token] = User(name)
        if role is not None:
            role_name = role.get("metadata", {}).get("name", name)
            self.grants.append(Grant(name, role_name, namespace, tuple(role["rules"])))

    def authenticate(self, request: Request) -> User:
        """Who sent it: the token's user, or nobody in particular; raises ApiError 401 for a wrong token."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not scheme:
            return ANONYMOUS
        user = self.users.get(token.strip())
        if scheme.lower() != "bearer" or user is None:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return user

    def check_path(self, user: User, path: str, verb: str) -> None:
        """Raise ApiError 403 unless the path, which is no resource, may be read."""
        if user.name != ANONYMOUS.name or path.startswith(_PUBLIC_PATHS):
            return
        message = f'forbidden: User "{user.name}" cannot {verb} path "{path}"'
        raise ApiError(403, "Forbidden", message, details={})

    def check(self, user: User, action: Action) -> None:
        """Raise ApiError 403 unless the user may do it."""
        if self.find_reason(user, action) is not None:
            return
        where = f'in the namespace "{action.namespace}"' if action.namespace else "at the cluster scope"
        why = (
            f'User "{user.name}" cannot {action.verb} resource "{action.resource_path}" '
            f'in API group "{action.resource.group}" {where}'
        )
        raise forbidden(action.resource, action.name, why)

    def find_reason(self, user: User, action: Action) -> str | None:
        """Why the user may do it, in the API's words ("" for an administrator), or None where they may not."""
        if user.is_admin:
            return ""
        for grant in self.grants:
            is_meant = grant.user == user.name and grant.namespace in ("", action.namespace)
            if is_meant and any(_allows(rule, action) for rule in grant.rules):
                return _bound_by(grant)
        return None

    def review(self, user: User, review: dict[str, Any]) -> dict[str, Any]:
        """The answer to a SelfSubjectAccessReview."""
        spec = review.get("spec") or {}
        reason: str | None = ""
        asked = spec.get("resourceAttributes")
        if asked is not None:
            plural, group = asked.get("resource", "*"), asked.get("group", "")
            resource = Resource(plural, "", group)
            action = Action(
                asked.get("verb", "*"),
                resource,
                asked.get("namespace", ""),
                asked.get("name", ""),
                asked.get("subresource", ""),
            )
            reason = self.find_reason(user, action)
        status: dict[str, Any] = {"allowed": reason is not None}
        if reason:
            status["reason"] = reason
        kind, version = "SelfSubjectAccessReview", "authorization.k8s.io/v1"
        return {"kind": kind, "apiVersion": version, "metadata": {}, "spec": spec, "status": status}


def _allows(rule: dict[str, Any], action: Action) -> bool:
    names = rule.get("resourceNames")
    return (
        _has(rule.get("verbs"), action.verb)
        and _has(rule.get("apiGroups"), action.resource.group)
        and (_has(rule.get("resources"), action.resource_path) or f"*/{action.subresource}" in rule["resources"])
        and (not names or action.name in names)
    )


def _has(words: list[str] | None, word: str) -> bool:
    return bool(words) and (word in (words or ()) or "*" in (words or ()))


def _bound_by(grant: Grant) -> str:
    """The sentence of the recorded reviews."""
    parts = grant.user.split(":")
    is_account = parts[:2] == ["system", "serviceaccount"]
    subject = f'ServiceAccount "{"/".join(parts[2:])}"' if is_account else f'User "{grant.user}"'
    if not grant.namespace:
        return f'RBAC: allowed by ClusterRoleBinding "{grant.role}" of ClusterRole "{grant.role}" to {subject}'
    return f'RBAC: allowed by RoleBinding "{grant.namespace}/{grant.role}" of Role "{grant.role}" to {subject}'
