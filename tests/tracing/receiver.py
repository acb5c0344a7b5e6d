"""A collector: takes traces as OTLP by HTTP, and keeps them as spans."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.tracing.recorder import Span


class Receiver:
    """What was sent to `endpoint`, which is an OTEL_EXPORTER_OTLP_ENDPOINT; `services` are the names of who sent it."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.spans: list[Span] = []
        self.services: set[str] = set()

    def take(self, body: bytes) -> None:
        """One request."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.services.add(str(_attributes(resource.resource)["service.name"]))
            for scope in resource.scope_spans:
                self.spans += map(_read, scope.spans)


@contextmanager
def open_receiver() -> Iterator[Receiver]:
    """A collector on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            is_good = (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
            if is_good:
                receiver.take(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            self.send_response(200 if is_good else 404)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


def _read(span: trace_pb2.Span) -> Span:
    is_error = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    return Span(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano / 1e9,
        span.end_time_unix_nano / 1e9,
        _attributes(span),
        span.status.message if is_error else "",
    )


def _attributes(holder: Any) -> dict[str, object]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in holder.attributes}
