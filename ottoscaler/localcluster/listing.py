"""Lists: selected, at a version, in pages. The continue token holds the version and the last key, as the real one."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import msgspec

from .exchange import Request
from .refusals import ApiError, bad_request, expired, too_large_version
from .resources import Resource
from .selectors import Selector, parse_selector
from .store import Expired, Objects, Published, Store

_TOO_OLD_LIST = "The resourceVersion for the provided list is too old."
_TOO_OLD_TOKEN = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)
_NOT_OLDER, _EXACT = "NotOlderThan", "Exact"


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: its objects, the version it is true for, and where the rest begins ("" at the end)."""

    items: Objects
    revision: int
    continue_token: str = ""
    remaining: int | None = None

    def metadata(self) -> dict[str, object]:
        """The list's metadata as it is sent."""
        metadata: dict[str, object] = {"resourceVersion": str(self.revision)}
        if self.continue_token:
            metadata["continue"] = self.continue_token
            if self.remaining is not None:
                metadata["remainingItemCount"] = self.remaining
        return metadata


def request_selector(resource: Resource, request: Request) -> Selector:
    """The label and field selector of a request; raises ApiError 400."""
    return parse_selector(
        resource.plural, request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")
    )


def take_page(store: Store, resource: Resource, namespace: str | None, request: Request) -> Page:
    """The page that a list request asks for; raises ApiError 400, 410 and 504."""
    selector = request_selector(resource, request)
    limit = parse_count("limit", request.query.get("limit", ""))
    token = request.query.get("continue", "")
    version = parse_version(request.query.get("resourceVersion", ""))
    if token:
        revision, start = _read_token(token)
        objects, revision = _objects_of_token(store, resource, namespace, revision, start)
    else:
        start = ""
        objects, revision = _objects_at(store, resource, namespace, version, request)
        if version == 0:
            limit = 0  # from the cache, which has no pages
    keyed = [(_key(obj, namespace), obj) for obj in objects if selector.matches(obj)]
    rest = [(key, obj) for key, obj in keyed if key >= start] if start else keyed
    items = [obj for _, obj in (rest[:limit] if limit else rest)]
    if len(items) == len(rest):
        return Page(items, revision)
    remaining = len(rest) - len(items) if selector.is_everything else None
    return Page(items, revision, _write_token(revision, "/" + rest[len(items) - 1][0] + "\0"), remaining)


def _objects_at(
    store: Store, resource: Resource, namespace: str | None, version: int | None, request: Request
) -> tuple[Objects, int]:
    if version is not None and version > store.revision:
        raise too_large_version(version, store.revision)
    if request.query.get("resourceVersionMatch") == _EXACT and version:
        try:
            return _in_namespace(store.list_at(resource.plural, version), namespace), version
        except Expired:
            raise expired(_TOO_OLD_LIST) from None
    return store.list(resource.plural, namespace), store.revision


def _objects_of_token(
    store: Store, resource: Resource, namespace: str | None, revision: int, start: str
) -> tuple[Objects, int]:
    if revision == -1:  # a token of a 410 answer: the rest, as it is now
        return store.list(resource.plural, namespace), store.revision
    try:
        return _in_namespace(store.list_at(resource.plural, revision), namespace), revision
    except Expired:
        raise expired(_TOO_OLD_TOKEN, _write_token(-1, start)) from None


def _in_namespace(objects: Objects, namespace: str | None) -> Objects:
    return [obj for obj in objects if namespace is None or obj["metadata"].get("namespace", "") == namespace]


def _key(obj: Published, namespace: str | None) -> str:
    metadata = obj["metadata"]
    return metadata["name"] if namespace is not None else f"{metadata.get('namespace', '')}/{metadata['name']}"


def _write_token(revision: int, start: str) -> str:
    token = msgspec.json.encode({"v": "meta.k8s.io/v1", "rv": revision, "start": start})
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def _read_token(token: str) -> tuple[int, str]:
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except (binascii.Error, ValueError):
        raise bad_request("invalid continue token: continue key is not valid: illegal base64 data") from None
    try:
        fields = msgspec.json.decode(raw)
        return int(fields["rv"]), str(fields["start"]).removeprefix("/")
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        first = raw[:1].decode(errors="replace")
        why = f"invalid character '{first}' looking for beginning of value"
        raise bad_request(f"invalid continue token: continue key is not valid: {why}") from None


def parse_version(text: str) -> int | None:
    """A resource version from a query, None where there is none; raises ApiError 500, as the real server does."""
    if not text:
        return None
    if not text.isdecimal():
        why = f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        raise ApiError(500, "", why)
    return int(text)


def parse_count(name: str, text: str) -> int:
    """A whole number from a query, 0 where there is none; raises ApiError 400."""
    if not text:
        return 0
    try:
        return int(text)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax ({name})') from None
