"""What the API says about itself: version, groups, resources, and as much OpenAPI as kubectl needs to apply.

Only what is served is listed. Both forms of discovery are answered: the aggregated one, which kubectl asks for first,
and the plain documents.
"""

from __future__ import annotations

from typing import Any

from .exchange import Request, Response, json_response
from .resources import GROUPS, RESOURCES, Resource

VERSION = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.0-localcluster",
    "gitCommit": "",
    "gitTreeState": "",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}
_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def answer_discovery(request: Request) -> Response | None:
    """The answer to a path that is about the API itself, or None where it is not."""
    path = request.path.rstrip("/") or "/"
    if path in ("/healthz", "/livez", "/readyz") or path.startswith(("/livez/", "/readyz/", "/healthz/")):
        return Response(body=b"ok", content_type="text/plain; charset=utf-8")
    if path in ("/api", "/apis") and request.wants("APIGroupDiscoveryList"):
        plain = json_response(_aggregated(is_core=path == "/api"))
        return Response(body=plain.body, content_type=_AGGREGATED)
    document = _documents(request).get(path)
    return None if document is None else json_response(document)


def _documents(request: Request) -> dict[str, Any]:
    address = request.headers.get("host", "127.0.0.1")
    documents: dict[str, Any] = {
        "/": {"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/readyz", "/version"]},
        "/version": VERSION,
        "/api": {
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
        },
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(g, v) for g, v in GROUPS if g]},
        "/openapi/v3": {"paths": {path.lstrip("/"): _openapi_link(path) for path in map(_root, GROUPS)}},
    }
    for group, version in GROUPS:
        root = _root((group, version))
        documents[root] = _resource_list(group, version)
        documents[f"/openapi/v3{root}"] = _openapi(group, version)
        if group:
            documents[f"/apis/{group}"] = {"kind": "APIGroup", "apiVersion": "v1"} | _group(group, version)
    return documents


def _root(group_version: tuple[str, str]) -> str:
    group, version = group_version
    return f"/apis/{group}/{version}" if group else f"/api/{version}"


def _group(group: str, version: str) -> dict[str, Any]:
    entry = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [entry], "preferredVersion": entry}


def _of(group: str, version: str) -> list[Resource]:
    return [resource for resource in RESOURCES if (resource.group, resource.version) == (group, version)]


def _resource_list(group: str, version: str) -> dict[str, Any]:
    entries: list[dict[str, Any]] = []
    for resource in _of(group, version):
        entry = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": resource.verbs,
            "shortNames": resource.short_names,
            "categories": resource.categories,
        }
        entries.append({key: value for key, value in entry.items() if value != ()})
        for sub in resource.subresources:
            part: dict[str, Any] = {
                "name": f"{resource.plural}/{sub.name}",
                "singularName": "",
                "namespaced": resource.namespaced,
                "group": sub.group,
                "version": sub.version,
                "kind": sub.kind,
                "verbs": sub.verbs,
            }
            entries.append({key: value for key, value in part.items() if value or key == "singularName"})
            entries[-1]["namespaced"] = resource.namespaced
    head = {"kind": "APIResourceList"} | ({"apiVersion": "v1"} if group else {})
    return head | {"groupVersion": f"{group}/{version}" if group else version, "resources": entries}


def _aggregated(*, is_core: bool) -> dict[str, Any]:
    items = [
        {
            "metadata": {"name": group, "creationTimestamp": None} if group else {"creationTimestamp": None},
            "versions": [
                {
                    "version": version,
                    "resources": [_aggregated_resource(resource) for resource in _of(group, version)],
                    "freshness": "Current",
                }
            ],
        }
        for group, version in GROUPS
        if (group == "") is is_core
    ]
    kind, version = "APIGroupDiscoveryList", "apidiscovery.k8s.io/v2"
    return {"kind": kind, "apiVersion": version, "metadata": {}, "items": items}


def _aggregated_resource(resource: Resource) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": resource.verbs,
        "shortNames": resource.short_names,
        "categories": resource.categories,
        "subresources": [
            {
                "subresource": sub.name,
                "responseKind": {"group": sub.group, "version": sub.version or "v1", "kind": sub.kind},
                "verbs": sub.verbs,
            }
            for sub in resource.subresources
        ],
    }
    return {key: value for key, value in entry.items() if value not in ((), [])}


def _openapi_link(path: str) -> dict[str, str]:
    return {"serverRelativeURL": f"/openapi/v3{path}?hash=localcluster"}


def _openapi(group: str, version: str) -> dict[str, Any]:
    """Paths without schemas: enough for kubectl to see that the server validates fields itself."""
    paths: dict[str, Any] = {}
    for resource in _of(group, version):
        kind = {"group": group, "version": version, "kind": resource.kind}
        validation = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}
        place = "/namespaces/{namespace}" if resource.namespaced else ""
        operation = {
            "x-kubernetes-group-version-kind": kind,
            "parameters": [validation],
            "responses": {"200": {"description": "OK"}},
        }
        paths[f"{_root((group, version))}{place}/{resource.plural}/{{name}}"] = {
            "patch": operation | {"x-kubernetes-action": "patch"}
        }
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.0"}, "paths": paths}
