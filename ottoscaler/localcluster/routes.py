"""From a request to its answer: who asks, what path it names, whether it is allowed, which verb carries it out."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from .access import AccessControl, Action
from .control import Control
from .discovery import answer_discovery
from .exchange import Request, Response, decode_body, error_response, json_response
from .objects_api import ObjectsApi, Target
from .pods_api import PodsApi
from .refusals import ApiError, method_not_allowed, unknown_resource
from .resources import ACCESS_REVIEWS, find_resource

_ON_OBJECT = {"GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_ON_COLLECTION = {"GET": "list", "HEAD": "list", "POST": "create", "DELETE": "deletecollection"}


def parse_target(path: str) -> Target | None:
    """What a path names, or None where it names no resource; raises ApiError 404 for one that is not served.

    `/api/v1/namespaces/otto/pods/p/log` is (pods, otto, p, log); `/api/v1/pods` is pods of all namespaces.
    """
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace: str | None = None
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    resource = find_resource(group, version, rest[0])
    if resource is None or len(rest) > 3 or (namespace is not None and not resource.namespaced):
        raise unknown_resource()
    name, subresource = ([*rest[1:], "", ""])[:2]
    if subresource and subresource not in [sub.name for sub in resource.subresources]:
        raise unknown_resource()
    return Target(resource, namespace if resource.namespaced else "", name, subresource)


def find_verb(request: Request, target: Target) -> str:
    """The verb of a request on a resource; raises ApiError 405."""
    verbs = _ON_OBJECT if target.name else _ON_COLLECTION
    if target.subresource:
        verbs = verbs | {"POST": "create"}
    verb = verbs.get(request.method, "")
    if verb in ("get", "list") and request.has_flag("watch"):
        verb = "watch"
    known = target.resource.verbs
    for sub in target.resource.subresources:
        if sub.name == target.subresource:
            known = sub.verbs
    if verb not in known:
        raise method_not_allowed()
    return verb


@dataclass(frozen=True, slots=True)
class Routes:
    """The whole API as one function from request to response."""

    access: AccessControl
    objects: ObjectsApi
    pods: PodsApi
    control: Control

    def describe(self, request: Request) -> str:
        """The verb of a request as faults know it; `get` for what is no resource."""
        try:
            target = parse_target(request.path)
            return find_verb(request, target) if target else "get"
        except ApiError:
            return "get"

    def answer(self, request: Request) -> Response:
        """Carry the request out; refusals become answers too."""
        try:
            request.user = self.access.authenticate(request)
            return self._answer(request)
        except ApiError as error:
            return error_response(error)

    def _answer(self, request: Request) -> Response:
        target = parse_target(request.path)
        if target is None:
            return self._answer_path(request)
        verb = find_verb(request, target)
        namespace = target.name if target.resource.plural == "namespaces" else target.namespace or ""
        if target.resource is ACCESS_REVIEWS:  # everybody may ask what they may do
            review = decode_body(request, ACCESS_REVIEWS)
            return json_response(self.access.review(request.user, review), 201)
        self.access.check(request.user, Action(verb, target.resource, namespace, target.name, target.subresource))
        if target.subresource and target.subresource != "status":
            return self._answer_subresource(target, request)
        if verb == "create" and target.namespace is None:
            raise method_not_allowed()
        return self._carry_out(verb, target, request)

    def _carry_out(self, verb: str, target: Target, request: Request) -> Response:
        match verb:
            case "create":
                return self.objects.create(target, request)
            case "get":
                return self.objects.get(target, request)
            case "list":
                return self.objects.list(target, request)
            case "watch":
                return self.objects.watch(target, request)
            case "update":
                return self.objects.update(target, request)
            case "patch":
                return self.objects.patch(target, request)
            case "delete":
                return self.objects.delete(target, request)
            case _:
                return self.objects.delete_collection(target, request)

    def _answer_subresource(self, target: Target, request: Request) -> Response:
        match target.subresource:
            case "log":
                return self.pods.get_log(target, request)
            case "eviction":
                return self.pods.evict(target, request)
            case _:
                return self.pods.bind(target, request)

    def _answer_path(self, request: Request) -> Response:
        self.access.check_path(request.user, request.path, request.method.lower())
        if request.path.startswith(("/faults", "/harm")):
            return self.control.answer(request)
        found = answer_discovery(request)
        if found is not None:
            return found
        if request.path.startswith(("/api/", "/apis/")):
            raise unknown_resource()
        return Response(404, b"404 page not found\n", "text/plain; charset=utf-8")
