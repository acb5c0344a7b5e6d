"""The switch for those outside the process: faults, harm to pods, refusals and users, under /faults, for the token.

POST   /faults                a Fault as JSON; answers its number
GET    /faults                what is on
DELETE /faults[/NUMBER]       all off, or one
POST   /faults/compact        forget all changes so far: watches from before get 410
POST   /faults/strip-labels   {namespace, name, labels: [...] (absent: all)}
POST   /faults/deny           a Denial as JSON: refuse pods with a label; DELETE takes all back
POST   /faults/users          {token, name, role, namespace}: know one more user, bound to a Role
POST   /faults/harm/WHAT      {namespace, name, ...}: what `harm` can do to a pod or the node
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from .access import AccessControl
from .admission import Admission, Denial
from .exchange import Request, Response, json_response
from .faults import Fault, Faults
from .refusals import ApiError, bad_request, not_found, unknown_resource
from .resources import PODS
from .store import NotFound, Store

Harm = Callable[..., object]  # keyword arguments as JSON gives them


class _Strip(msgspec.Struct, forbid_unknown_fields=True):
    namespace: str
    name: str
    labels: list[str] | None = None


class _NewUser(msgspec.Struct, forbid_unknown_fields=True):
    token: str
    name: str
    role: dict[str, Any] | None = None
    namespace: str = ""


def strip_labels(store: Store, namespace: str, name: str, labels: list[str] | None = None) -> None:
    """Take labels off a pod, all of them where none is named; raises NotFound."""

    def change(pod: dict[str, Any]) -> None:
        found = pod["metadata"].get("labels", {})
        kept = {key: value for key, value in found.items() if labels is not None and key not in labels}
        pod["metadata"].pop("labels", None)
        if kept:
            pod["metadata"]["labels"] = kept

    store.update("pods", namespace, name, change)


@dataclass(frozen=True, slots=True)
class Control:
    """Everything that can be switched, by one administrator."""

    store: Store
    faults: Faults
    admission: Admission
    access: AccessControl
    harms: Mapping[str, Harm]

    def answer(self, request: Request) -> Response:
        """Carry a request under /faults out; raises ApiError 400, 403, 404."""
        if not request.user.is_admin:
            raise ApiError(403, "Forbidden", "only the administrator may switch faults", details={})
        parts = request.path.strip("/").split("/")[1:]
        try:
            return json_response(self._carry_out(request, *parts))
        except (msgspec.ValidationError, msgspec.DecodeError, TypeError, ValueError) as error:
            raise bad_request(f"{request.method} {request.path}: {error}") from None
        except NotFound as error:
            raise not_found(PODS, error.name) from None

    def _carry_out(self, request: Request, what: str = "", which: str = "") -> object:
        match request.method, what:
            case "GET", "":
                return self.faults.statistics()
            case "POST", "":
                return {"number": self.faults.add(msgspec.json.decode(request.body, type=Fault))}
            case "DELETE", "":
                self.faults.clear()
            case "DELETE", "deny":
                self.admission.denials.clear()
            case "DELETE", number if number.isdecimal():
                self.faults.remove(int(number))
            case "POST", "compact":
                self.store.compact(self.store.revision)
            case "POST", "strip-labels":
                strip = msgspec.json.decode(request.body, type=_Strip)
                strip_labels(self.store, strip.namespace, strip.name, strip.labels)
            case "POST", "deny":
                self.admission.denials.append(msgspec.json.decode(request.body, type=Denial))
            case "POST", "users":
                user = msgspec.json.decode(request.body, type=_NewUser)
                self.access.add_user(user.token, user.name, user.role, user.namespace)
            case "POST", "harm" if which in self.harms:
                return self.harms[which](**msgspec.json.decode(request.body or b"{}", type=dict[str, Any])) or {}
            case _:
                raise unknown_resource()
        return {}
