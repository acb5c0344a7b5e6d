"""The file of `ottoscaler call pipeline`: YAML with the fields of a PipelineRequest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError

from ottoscaler.cli.calling import WrongCall
from ottoscaler.kube.yaml_file import read_yaml
from ottoscaler.rpc.v1.pipeline_pb2 import PipelineRequest

MOST_SHOWN = 200


def read_pipeline(file: Path) -> PipelineRequest:
    """The request that a file describes. Raises `WrongCall`."""
    try:
        found = read_yaml(file)
    except ValueError as error:
        raise WrongCall(f"{file} {error}") from error
    if not isinstance(found, dict):
        raise WrongCall(f"{file} is not a mapping with the fields of a PipelineRequest, such as stages")
    try:
        _check_message(PipelineRequest.DESCRIPTOR, found, "")
        request: PipelineRequest = ParseDict(found, PipelineRequest())
    except (ValueError, ParseError) as error:
        raise WrongCall(f"{file}: {' '.join(str(error).split())}") from error
    return request


def _check_message(kind: Any, found: object, where: str) -> None:
    """Refuse what is no message of this descriptor, with a ValueError that names field, value and what was expected."""
    fields = {name: field for field in kind.fields for name in (field.name, field.camelcase_name)}
    for name, value in _mapping(found, where).items():
        path = f"{where}.{name}" if where else f"{name}"
        if name not in fields:
            raise _wrong(path, value, f"one of the fields {', '.join(field.name for field in kind.fields)}")
        if value is not None:
            _check_field(fields[name], value, path)


def _check_field(field: FieldDescriptor, value: object, where: str) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        for name, text in _mapping(value, where).items():
            _check_one(field.message_type.fields_by_name["key"], name, f"a name in {where}")
            _check_one(field.message_type.fields_by_name["value"], text, f'{where}["{name}"]')
    elif field.is_repeated:
        if not isinstance(value, list):
            raise _wrong(where, value, "a list")
        for at, each in enumerate(value):
            _check_one(field, each, f"{where}[{at}]")
    else:
        _check_one(field, value, where)


def _check_one(field: FieldDescriptor, value: object, where: str) -> None:
    if field.message_type is not None:
        _check_message(field.message_type, value, where)
    elif field.type == FieldDescriptor.TYPE_STRING:
        if not isinstance(value, str):
            raise _wrong(where, value, "text, in quotes where YAML takes it for something else")
    elif isinstance(value, bool) or not isinstance(value, int) or not -(2**31) <= value < 2**31:
        raise _wrong(where, value, "a whole number of 32 bits")


def _mapping(found: object, where: str) -> dict[Any, Any]:
    if not isinstance(found, dict):
        raise _wrong(where, found, "a mapping")
    return found


def _wrong(where: str, value: object, expected: str) -> ValueError:
    shown = repr(value)
    shown = shown if len(shown) <= MOST_SHOWN else f"{shown[:MOST_SHOWN]}…"
    return ValueError(f"{where} is {shown}, expected {expected}")
