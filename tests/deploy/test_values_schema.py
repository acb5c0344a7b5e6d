"""The schema of the chart's values: helm takes for a setting what the scaler takes, where a schema can say it."""

from __future__ import annotations

import json
import math
from typing import Any

import jsonschema
import pytest

from ottoscaler.cli.settings_table import SCHEMA, value_schema
from ottoscaler.parsing import Kind
from ottoscaler.settings import FIELDS
from tests.deploy.helm import HelmFailed, Values, render

KNOWN = json.loads(SCHEMA.read_text())["properties"]["settings"]["properties"]
PLAIN = {name: FIELDS[name].kind for name in KNOWN}
BOUND = {name: kind for name, kind in PLAIN.items() if math.isfinite(kind.most)}


def takes(kind: Kind, value: object) -> bool:
    """Whether the schema of a kind has nothing against a value."""
    return not list(jsonschema.Draft7Validator(value_schema(kind)).iter_errors(value))


def is_read(kind: Kind, text: str) -> bool:
    """Whether the scaler takes it."""
    try:
        kind.parse(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", PLAIN)
def test_defaults_are_taken(name: str) -> None:
    """The default as text, and, where it is JSON, as what it stands for; and nothing, which means the default."""
    default = FIELDS[name].default
    assert all(takes(PLAIN[name], value) for value in ("", None))
    if isinstance(default, str):
        assert takes(PLAIN[name], default)
        assert PLAIN[name].shape == "text" or takes(PLAIN[name], json.loads(default))


@pytest.mark.parametrize("name", BOUND)
def test_bounds_are_those_of_the_scaler(name: str) -> None:
    """The least and the most are taken by both, what is beyond them by neither, and no word is a number."""
    kind = BOUND[name]
    for inside in (kind.least, kind.most):
        assert takes(kind, inside)
        assert takes(kind, str(inside))
        assert is_read(kind, str(inside))
    for outside in (kind.least - 1, kind.most + 1):
        assert not takes(kind, outside)
        assert not is_read(kind, str(outside))
    for word in ("30s", "many", True, [1]):
        assert not takes(kind, word)


def test_words_are_those_of_the_scaler() -> None:
    """Truths and choices are taken as the scaler takes them, and nothing else."""
    chosen = {name: kind for name, kind in PLAIN.items() if kind.words or kind.shape == "boolean"}
    assert {"REDIS_TRIM", "LOG_LEVEL", "GRPC_ENABLED"} <= chosen.keys()
    for kind in chosen.values():
        enum: list[Any] = value_schema(kind)["enum"]
        assert all(is_read(kind, str(value)) for value in enum if value not in ("", None))
        assert not takes(kind, "perhaps")
        assert not takes(kind, 7)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"settings": {"MAX_EVENTS": 0}}, "MAX_EVENTS"),
        ({"settings": {"DRAIN_SECONDS": "20s"}}, "DRAIN_SECONDS"),
        ({"settings": {"GRPC_ENABLED": "yes"}}, "GRPC_ENABLED"),
        ({"settings": {"LOG_LEVEL": "loud"}}, "LOG_LEVEL"),
        ({"settings": {"WORKER_COMMAND": ["sleep", 5]}}, "WORKER_COMMAND"),
    ],
)
def test_helm_refuses_a_wrong_value(values: Values, words: str) -> None:
    """Before anything is installed, naming the setting."""
    with pytest.raises(HelmFailed, match=words):
        render(values)
