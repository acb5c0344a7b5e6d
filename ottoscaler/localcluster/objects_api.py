"""The verbs on objects of any resource: create, get, list, watch, update, patch, delete, deletecollection.

Everything is decided in one step without waiting, so each request sees and leaves the store whole.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from .admission import Admission
from .defaults import generate_name, set_defaults
from .deletion import DeleteOptions, delete_object, is_to_be_removed
from .exchange import Request, Response, decode_body, decode_json, json_response
from .faults import Faults
from .fields import decode_fields
from .listing import parse_count, take_page
from .namespaces import fill_namespace
from .patch import APPLY, JSON_PATCH, MERGE, STRATEGIC, apply_patch, unsupported_patch
from .refusals import ApiError, Cause, already_exists, bad_request, invalid, modified_meanwhile, not_found, undecodable
from .rendering import choose_encoding, render_list, render_object
from .resources import Resource
from .store import AlreadyExists, NotFound, Published, Store, copy_json, format_time
from .validation import validate_object, validate_pod_update
from .watching import open_watch

_SERVERS_OWN = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "managedFields",
)
_WITH_STATUS = ("pods", "nodes", "namespaces", "resourcequotas", "persistentvolumeclaims")
_ANSWERED_WHOLE = ("pods", "namespaces", "serviceaccounts", "services", "resourcequotas", "persistentvolumeclaims")


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names: a resource, one namespace ("" for cluster-wide kinds, None for all), perhaps one object."""

    resource: Resource
    namespace: str | None
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """How the store finds it."""
        return self.resource.plural, self.namespace or "", self.name


@dataclass(frozen=True, slots=True)
class ObjectsApi:
    """The generic half of the API, over one store."""

    store: Store
    admission: Admission
    faults: Faults
    ca_pem: str  # what every new namespace is given to trust

    def create(self, target: Target, request: Request) -> Response:
        """POST on a collection."""
        body = decode_body(request, target.resource)
        obj, headers = self._read(target, request, body)
        created = self._create(target, request, obj)
        return render_object(self.store, target.resource, request, created, 201, headers)

    def get(self, target: Target, request: Request) -> Response:
        """GET on an object."""
        return render_object(self.store, target.resource, request, self._find(target))

    def list(self, target: Target, request: Request) -> Response:
        """GET on a collection."""
        page = take_page(self.store, target.resource, target.namespace, request)
        return render_list(self.store, target.resource, request, page)

    def watch(self, target: Target, request: Request) -> Response:
        """GET on a collection with `watch`."""
        encode = choose_encoding(self.store, target.resource, request)
        return open_watch(self.store, self.faults, target.resource, target.namespace, request, encode)

    def update(self, target: Target, request: Request) -> Response:
        """PUT on an object."""
        body = decode_body(request, target.resource)
        wanted, headers = self._read(target, request, body, check_name=True)
        updated = self._write(target, request, wanted)
        return render_object(self.store, target.resource, request, updated, headers=headers)

    def patch(self, target: Target, request: Request) -> Response:
        """PATCH on an object; apply creates it where it is missing."""
        kind = request.media_type
        if kind not in (MERGE, JSON_PATCH, STRATEGIC, APPLY):
            raise unsupported_patch()
        patch = decode_body(request, target.resource) if kind == APPLY else decode_json(request.body)
        if kind == APPLY:
            _check_manager(request)
            try:
                self._find(target)
            except ApiError:
                obj, headers = self._read(target, request, patch, check_name=True)
                created = self._create(target, request, obj)
                return render_object(self.store, target.resource, request, created, 201, headers)
        patched = apply_patch(target.resource, kind, self._find(target), patch)
        known, headers = _known_fields(target.resource, request, patched)
        updated = self._write(target, request, known)
        return render_object(self.store, target.resource, request, updated, headers=headers)

    def delete(self, target: Target, request: Request) -> Response:
        """DELETE on an object."""
        options = read_delete_options(target.resource, request)
        gone = delete_object(self.store, target.resource, target.namespace or "", target.name, options)
        if target.resource.plural in _ANSWERED_WHOLE:
            return render_object(self.store, target.resource, request, gone)
        details = {"name": target.name, "group": target.resource.group, "kind": target.resource.plural}
        named = {key: value for key, value in details.items() if value} | {"uid": gone["metadata"]["uid"]}
        whole = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": named}
        return json_response(whole)

    def delete_collection(self, target: Target, request: Request) -> Response:
        """DELETE on a collection: one by one; the answer holds what was there before."""
        options = read_delete_options(target.resource, request)
        page = take_page(self.store, target.resource, target.namespace, request)
        for obj in page.items:
            metadata = obj["metadata"]
            delete_object(self.store, target.resource, metadata.get("namespace", ""), metadata["name"], options)
        return render_list(self.store, target.resource, request, page)

    def _find(self, target: Target) -> Published:
        try:
            return self.store.get(*target.key)
        except NotFound:
            raise not_found(target.resource, target.name) from None

    def _read(
        self, target: Target, request: Request, body: dict[str, Any], *, check_name: bool = False
    ) -> tuple[dict[str, Any], tuple[tuple[str, str], ...]]:
        """The object of a body, of the right kind and place, with unknown fields left out and warned of."""
        _check_kind(target.resource, body)
        obj, headers = _known_fields(target.resource, request, body)
        metadata = obj["metadata"] = dict(obj.get("metadata") or {})
        if target.resource.namespaced:
            if metadata.setdefault("namespace", target.namespace) != target.namespace:
                what = "the namespace of the provided object does not match the namespace sent on the request"
                raise bad_request(what)
        else:
            metadata.pop("namespace", None)
        if check_name and metadata.setdefault("name", target.name) != target.name:
            what = f"the name of the object ({metadata['name']}) does not match the name on the URL ({target.name})"
            raise bad_request(what)
        return obj, headers

    def _create(self, target: Target, request: Request, obj: dict[str, Any]) -> Published:
        resource, metadata = target.resource, obj["metadata"]
        for field in _SERVERS_OWN:
            metadata.pop(field, None)
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = generate_name(metadata["generateName"])
        if resource.plural == "pods":
            obj.setdefault("spec", {})
        if metadata.get("name"):
            set_defaults(resource, obj)
        self.admission.admit_early(resource, obj)
        validate_object(resource, obj)
        self.admission.admit_late(resource, obj)
        obj.pop("kind", None)
        obj.pop("apiVersion", None)
        if request.query.get("dryRun"):
            identity = {"uid": str(uuid.uuid4()), "creationTimestamp": format_time(self.store.now())}
            return Published({**obj, "metadata": {**metadata, **identity}})
        try:
            created = self.store.create(resource.plural, obj)
        except AlreadyExists:
            raise already_exists(resource, metadata["name"]) from None
        if resource.plural == "namespaces":
            fill_namespace(self.store, metadata["name"], self.ca_pem)
        return created

    def _write(self, target: Target, request: Request, wanted: dict[str, Any]) -> Published:
        """Put `wanted` in the place of what is there, as far as it may change; raises ApiError."""
        before = self._find(target)
        after = _merge_allowed(target, before, wanted)
        validate_object(target.resource, after)
        if target.resource.plural == "pods":
            validate_pod_update(target.resource, before, after)
        if request.query.get("dryRun"):
            return Published(after)
        if is_to_be_removed(after):
            self.store.remove(*target.key)
            return Published(after)

        def change(obj: dict[str, Any]) -> None:
            obj.clear()
            obj.update(after)

        return self.store.update(*target.key, change)


def read_delete_options(resource: Resource, request: Request) -> DeleteOptions:
    """The options of a delete, from its body and query; raises ApiError 400."""
    body = decode_body(request, Resource("deleteoptions", "DeleteOptions")) if request.body.strip() else {}
    preconditions = body.get("preconditions") or {}
    grace = body.get("gracePeriodSeconds")
    if "gracePeriodSeconds" in request.query:
        grace = parse_count("gracePeriodSeconds", request.query["gracePeriodSeconds"])
    if grace is not None and not isinstance(grace, int):
        raise undecodable(resource, f"gracePeriodSeconds: {grace!r} is no whole number")
    is_dry = bool(request.query.get("dryRun") or body.get("dryRun"))
    return DeleteOptions(grace, preconditions.get("uid"), preconditions.get("resourceVersion"), is_dry)


def _known_fields(
    resource: Resource, request: Request, body: dict[str, Any]
) -> tuple[dict[str, Any], tuple[tuple[str, str], ...]]:
    obj, unknown = decode_fields(resource, body)
    handling = request.query.get("fieldValidation", "Warn")
    if unknown and handling == "Strict":
        listed = ", ".join(f'unknown field "{path}"' for path in unknown)
        raise undecodable(resource, f"strict decoding error: {listed}")
    if handling == "Ignore":
        return obj, ()
    return obj, tuple(("warning", f'299 - "unknown field \\"{path}\\""') for path in unknown)


def _check_kind(resource: Resource, body: dict[str, Any]) -> None:
    kind, version = body.get("kind") or resource.kind, body.get("apiVersion") or resource.api_version
    if (kind, version) == (resource.kind, resource.api_version):
        return
    scheme = 'in scheme "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"'
    why = f'no kind "{kind}" is registered for version "{version}" {scheme}'
    short = str(version).rpartition("/")[2]
    raise bad_request(f'{kind} in version "{short}" cannot be handled as a {resource.kind}: {why}')


def _check_manager(request: Request) -> None:
    if not request.query.get("fieldManager"):
        options = Resource("patchoptions", "PatchOptions", "meta.k8s.io")
        raise invalid(
            options, "", [Cause("FieldValueRequired", "Required value: is required for apply patch", "fieldManager")]
        )


def _merge_allowed(target: Target, before: Published, wanted: dict[str, Any]) -> dict[str, Any]:
    """What an update leaves of `wanted`: identity stays, and spec and status change only by their own paths."""
    metadata = dict(wanted["metadata"])
    asked, now = metadata.get("resourceVersion"), before["metadata"]["resourceVersion"]
    if (asked and asked != now) or metadata.get("uid", before["metadata"]["uid"]) != before["metadata"]["uid"]:
        raise modified_meanwhile(target.resource, target.name)
    for field in (*_SERVERS_OWN, "name", "namespace"):
        metadata.pop(field, None)
        if field in before["metadata"]:
            metadata[field] = before["metadata"][field]
    after = {key: value for key, value in wanted.items() if key not in ("kind", "apiVersion")}
    after["metadata"] = {key: value for key, value in metadata.items() if value not in ({}, [])}
    if target.subresource == "status":
        status = after.get("status", {})
        after = {**before, "metadata": after["metadata"], "status": status}
    elif target.resource.plural in _WITH_STATUS:
        after["status"] = before.get("status", {})
    if after.get("spec") != before.get("spec") and "generation" in before["metadata"]:
        after["metadata"]["generation"] = before["metadata"]["generation"] + 1
    return dict(copy_json(after))
