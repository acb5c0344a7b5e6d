"""Whether traces are switched on, by the variables that all of OpenTelemetry knows.

They are where an OTLP endpoint is given, or `OTEL_TRACES_EXPORTER` asks for OTLP. What cannot be had is said once and
stops nothing: some platforms set these variables in every pod.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

PROTOCOL = "http/protobuf"
DEFAULT_ENDPOINT = "http://localhost:4318"


class Switch(NamedTuple):
    """`endpoint`: where traces go, empty = they are off. `problem`: why they are off although they were asked for."""

    endpoint: str = ""
    problem: str = ""


def read_switch(environ: Mapping[str, str]) -> Switch:
    """What the environment says; an empty value counts as unset."""
    exporters = {name.strip() for name in environ.get("OTEL_TRACES_EXPORTER", "").split(",")} - {""}
    endpoint = _of_traces(environ, "ENDPOINT") or (DEFAULT_ENDPOINT if "otlp" in exporters else "")
    is_disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if is_disabled or not endpoint or (exporters and "otlp" not in exporters):
        return Switch()
    protocol = _of_traces(environ, "PROTOCOL") or PROTOCOL
    if protocol != PROTOCOL:
        return Switch(problem=f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}, expected {PROTOCOL}")
    return Switch(endpoint)


def _of_traces(environ: Mapping[str, str], name: str) -> str:
    """A variable of the exporter: the one for traces wins over the one for everything."""
    given = environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or environ.get(f"OTEL_EXPORTER_OTLP_{name}") or ""
    return given.strip()
