"""What to ask the API: verb and arguments become method, path and body. Pure; sending is elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, urlencode

import msgspec

Verb = Literal["create", "delete", "deletecollection", "get", "list", "watch", "log", "follow", "review", "version"]
WRITES = frozenset({"create", "delete", "deletecollection"})

CREATE_TIMEOUT_SECONDS = 10
"""The server gives up a create that a webhook or a queue holds longer, so that it is not carried out much later."""
FINISHED = "status.phase!=Pending,status.phase!=Running"
PAGE = 500


class Request(NamedTuple):
    """One request. `target` names the object in words; `seconds` is how long an answer may take to begin."""

    verb: Verb
    target: str
    method: str
    url: str
    body: bytes = b""
    seconds: float = 10.0

    @property
    def is_write(self) -> bool:
        """Whether it changes something that others see, so that it needs our lease."""
        return self.verb in WRITES


WARNINGS = "involvedObject.kind=Pod,type=Warning"


def _pods(namespace: str, name: str = "", **params: object) -> str:
    return _path(namespace, "pods" + (f"/{quote(name, safe='')}" if name else ""), **params)


def _path(namespace: str, what: str, **params: object) -> str:
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/{what}"
    given = {key: value for key, value in params.items() if value not in ("", None)}
    return f"{path}?{urlencode(given)}" if given else path


def create_pod(namespace: str, body: Mapping[str, Any]) -> Request:
    """Create the pod that `body` describes; the name is in its metadata."""
    metadata = body.get("metadata") or {}
    return Request(
        "create",
        f"pod {namespace}/{metadata.get('name', '')}",
        "POST",
        _pods(namespace, timeout=f"{CREATE_TIMEOUT_SECONDS}s"),
        msgspec.json.encode(body),
        CREATE_TIMEOUT_SECONDS + 5.0,
    )


def delete_pod(
    namespace: str, name: str, uid: str | None, resource_version: str | int | None, grace_seconds: int | None
) -> Request:
    """Delete one pod, if given only with this uid and of this version, with this grace (None = the pod's own)."""
    preconditions = {"uid": uid, "resourceVersion": str(resource_version) if resource_version is not None else None}
    preconditions = {key: value for key, value in preconditions.items() if value is not None}
    options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
    if preconditions:
        options["preconditions"] = preconditions
    if grace_seconds is not None:
        options["gracePeriodSeconds"] = grace_seconds
    body = msgspec.json.encode(options) if len(options) > 2 else b""
    return Request("delete", f"pod {namespace}/{name}", "DELETE", _pods(namespace, name), body)


def delete_finished_pods(namespace: str, selector: str, limit: int) -> Request:
    """Delete up to `limit` pods of the selector that neither wait nor run; the server does it one by one."""
    url = _pods(namespace, labelSelector=selector, fieldSelector=FINISHED, limit=limit)
    return Request("deletecollection", f"finished pods of {selector} in {namespace}", "DELETE", url, seconds=60.0)


def get_pod(namespace: str, name: str) -> Request:
    """Read one pod."""
    return Request("get", f"pod {namespace}/{name}", "GET", _pods(namespace, name))


def list_pods(namespace: str, selector: str, limit: int = PAGE, proceed: str = "") -> Request:
    """One page of a list; without a resource version, so that it is never older than what was answered before.

    `proceed` is the token of the page before.
    """
    url = _pods(namespace, labelSelector=selector, limit=limit, **{"continue": proceed})
    return Request("list", f"pods of {selector} in {namespace}", "GET", url, seconds=15.0)


def watch_pods(namespace: str, selector: str, resource_version: int, timeout_seconds: int) -> Request:
    """Watch from a version on, with bookmarks; the server ends it after `timeout_seconds`."""
    url = _pods(
        namespace,
        watch="1",
        allowWatchBookmarks="true",
        labelSelector=selector,
        resourceVersion=resource_version,
        timeoutSeconds=timeout_seconds,
    )
    return Request("watch", f"pods of {selector} in {namespace}", "GET", url)


def list_warnings(namespace: str, proceed: str = "") -> Request:
    """One page of the events that warn of pods."""
    url = _path(namespace, "events", fieldSelector=WARNINGS, limit=PAGE, **{"continue": proceed})
    return Request("list", f"warnings of pods in {namespace}", "GET", url, seconds=15.0)


def watch_warnings(namespace: str, resource_version: int, timeout_seconds: int) -> Request:
    """Watch the events that warn of pods, with bookmarks; the server ends it after `timeout_seconds`."""
    url = _path(
        namespace,
        "events",
        watch="1",
        allowWatchBookmarks="true",
        fieldSelector=WARNINGS,
        resourceVersion=resource_version,
        timeoutSeconds=timeout_seconds,
    )
    return Request("watch", f"warnings of pods in {namespace}", "GET", url)


def read_log(
    namespace: str, name: str, container: str, *, follow: bool, since: str, limit_bytes: int | None
) -> Request:
    """The log of a container with a stamp before each line; `since` is RFC 3339 in whole seconds, "" = from the first.

    With `follow` it goes on until the container ends. Only the kubelet's current file is served.
    """
    query = {
        "container": container,
        "follow": "true" if follow else "",
        "timestamps": "true",
        "sinceTime": since,
        "limitBytes": limit_bytes,
    }
    url = _path(namespace, f"pods/{quote(name, safe='')}/log", **query)
    return Request("follow" if follow else "log", f"pod {namespace}/{name}", "GET", url, seconds=15.0)


def review_access(namespace: str, verb: str, resource: str, subresource: str, group: str) -> Request:
    """Ask whether we may do `verb` on a resource; changes nothing."""
    attributes = {
        "namespace": namespace,
        "verb": verb,
        "group": group,
        "resource": resource,
        "subresource": subresource,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    return Request("review", f"access to {verb} {resource}", "POST", path, msgspec.json.encode(review))


def version() -> Request:
    """Ask for the server's version."""
    return Request("version", "the server", "GET", "/version")
