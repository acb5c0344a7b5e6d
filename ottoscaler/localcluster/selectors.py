"""Label and field selectors: parsed from a query, then asked about objects. Errors are the API's own words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .refusals import bad_request

Predicate = Callable[[dict[str, Any]], bool]

_TOKEN = re.compile(r"\s*(==|!=|[=!(),<>]|[^\s=!(),<>]+)")

# What each resource can be selected by, beyond metadata.name and metadata.namespace.
_FIELDS = {
    "pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    "events": (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    "namespaces": ("status.phase",),
    "nodes": ("spec.unschedulable",),
    "secrets": ("type",),
}


@dataclass(frozen=True, slots=True)
class Selector:
    """Which objects are meant: all that fulfil every predicate. `is_everything` where there is none."""

    predicates: tuple[Predicate, ...] = ()
    name: str | None = None  # where one name is selected: that name

    @property
    def is_everything(self) -> bool:
        """Whether nothing is selected away."""
        return not self.predicates

    def matches(self, obj: dict[str, Any]) -> bool:
        """Whether the object is meant."""
        return all(predicate(obj) for predicate in self.predicates)


def parse_selector(resource: str, label_text: str, field_text: str) -> Selector:
    """The selector of a list, watch or collection delete; raises ApiError 400."""
    name, fields = _parse_fields(resource, field_text)
    return Selector((*_parse_labels(label_text), *fields), name)


class _Tokens:
    """A label selector cut into words and signs."""

    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)
        self._next = 0

    def peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self._next += 1
        return token

    def take_word(self, expected: str = "identifier") -> str:
        token = self.take()
        if not token or token in "==!=(),<>":
            raise bad_request(f"unable to parse requirement: found '{token}', expected: {expected}")
        return token


def _parse_labels(text: str) -> list[Predicate]:
    tokens = _Tokens(text)
    predicates: list[Predicate] = []
    while tokens.peek():
        predicates.append(_parse_requirement(tokens))
        if tokens.peek() and tokens.take() != ",":
            raise bad_request(f"unable to parse requirement: found '{tokens.peek()}', expected: ',' or 'end of string'")
    return predicates


def _parse_requirement(tokens: _Tokens) -> Predicate:
    if tokens.peek() == "!":
        tokens.take()
        return _absent(tokens.take_word())
    key = tokens.take_word("!, identifier, or 'end of string'")
    operator = tokens.peek()
    if operator in ("", ","):
        return _present(key)
    tokens.take()
    if operator in ("=", "=="):
        return _one_of(key, {_value(tokens)})
    if operator == "!=":
        return _none_of(key, {_value(tokens)})
    if operator in ("in", "notin"):
        values = _value_set(tokens)
        return _one_of(key, values) if operator == "in" else _none_of(key, values)
    raise bad_request(
        f"unable to parse requirement: found '{operator}', expected: in, notin, =, ==, !=, gt, lt, or end of string"
    )


def _value(tokens: _Tokens) -> str:
    return "" if tokens.peek() in ("", ",") else tokens.take_word()


def _value_set(tokens: _Tokens) -> set[str]:
    if tokens.take() != "(":
        raise bad_request("unable to parse requirement: found '', expected: '('")
    values = set()
    while tokens.peek() != ")":
        values.add(tokens.take_word())
        if tokens.peek() == ",":
            tokens.take()
    tokens.take()
    return values


def _labels(obj: dict[str, Any]) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def _present(key: str) -> Predicate:
    return lambda obj: key in _labels(obj)


def _absent(key: str) -> Predicate:
    return lambda obj: key not in _labels(obj)


def _one_of(key: str, values: set[str]) -> Predicate:
    return lambda obj: _labels(obj).get(key) in values


def _none_of(key: str, values: set[str]) -> Predicate:
    return lambda obj: _labels(obj).get(key) not in values


def _parse_fields(resource: str, text: str) -> tuple[str | None, list[Predicate]]:
    only_name: str | None = None
    predicates: list[Predicate] = []
    for term in filter(None, text.split(",")):
        found = re.fullmatch(r"(.*?)(!=|==|=)(.*)", term)
        if not found:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
        path, operator, value = found.groups()
        if path not in ("metadata.name", "metadata.namespace", *_FIELDS.get(resource, ())):
            raise bad_request(f"field label not supported: {path}")
        if path == "metadata.name" and operator != "!=":
            only_name = value
        predicates.append(_field(tuple(path.split(".")), value, wanted=operator != "!="))
    return only_name, predicates


def _field(path: tuple[str, ...], value: str, *, wanted: bool) -> Predicate:
    def is_meant(obj: dict[str, Any]) -> bool:
        found: Any = obj
        for part in path:
            found = (found.get(part) if isinstance(found, dict) else None) or ""
        if isinstance(found, dict):  # an event's source is selected by its component
            found = found.get("component", "")
        return (_written(found) == value) is wanted

    return is_meant


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
