"""Objects and lists in the form that a request accepts: whole, as a table, or as metadata only."""

from __future__ import annotations

from typing import Any

import msgspec

from .exchange import Request, Response, json_response, object_bytes
from .listing import Page
from .resources import Resource
from .store import Published, Store
from .tables import metadata_only, render_table
from .watching import Encode, encode_event

Headers = tuple[tuple[str, str], ...]


def render_object(
    store: Store, resource: Resource, request: Request, obj: Published, status: int = 200, headers: Headers = ()
) -> Response:
    """One object, as accepted."""
    if request.wants("Table"):
        version = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        return json_response(render_table(resource, [obj], version, store.now()), status, headers)
    if request.wants("PartialObjectMetadata"):
        return json_response(metadata_only(obj), status, headers)
    return Response(status, object_bytes(resource, obj), headers=headers)


def render_list(store: Store, resource: Resource, request: Request, page: Page) -> Response:
    """A list, as accepted."""
    metadata: dict[str, Any] = page.metadata()
    if request.wants("Table"):
        return json_response(render_table(resource, list(page.items), metadata, store.now()))
    if request.wants("PartialObjectMetadataList"):
        kind, version = "PartialObjectMetadataList", "meta.k8s.io/v1"
        items = [metadata_only(obj) for obj in page.items]
        return json_response({"kind": kind, "apiVersion": version, "metadata": metadata, "items": items})
    head = b'{"kind":"%sList","apiVersion":"%s","metadata":%s,"items":[' % (
        resource.kind.encode(),
        resource.api_version.encode(),
        msgspec.json.encode(metadata),
    )
    return Response(body=head + b",".join(obj.json for obj in page.items) + b"]}")


def choose_encoding(store: Store, resource: Resource, request: Request) -> Encode:
    """How a watch encodes its events: whole objects, tables of one row, or metadata only."""
    if request.wants("Table"):
        return _encode_tables(store, resource)
    if request.wants("PartialObjectMetadata"):
        return lambda event, obj: msgspec.json.encode({"type": event, "object": metadata_only(obj)}) + b"\n"
    return encode_event(resource)


def _encode_tables(store: Store, resource: Resource) -> Encode:
    is_first = True

    def encode(event: str, obj: Published) -> bytes:
        nonlocal is_first
        version = {"resourceVersion": obj["metadata"]["resourceVersion"]}
        objects: list[dict[str, Any]] = [] if event == "BOOKMARK" else [obj]
        table = render_table(resource, objects, version, store.now(), with_columns=is_first)
        is_first = False
        return msgspec.json.encode({"type": event, "object": table}) + b"\n"

    return encode
