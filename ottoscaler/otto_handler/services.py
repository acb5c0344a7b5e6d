"""What each rpc does: number what comes, look up how to behave, keep it, answer."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from ottoscaler.otto_handler.behaviour import LOOK_SECONDS, Behaviour, Control
from ottoscaler.otto_handler.store import Record, Sink
from ottoscaler.rpc.v1 import log_streaming_pb2, worker_logs_pb2

Context = grpc.ServicerContext
Status = worker_logs_pb2.WorkerStatusNotification.StatusType


class Services:
    """Both services of an otto-handler; its methods run in threads of gRPC."""

    def __init__(self, control: Control, sink: Sink, die: Callable[[], None], token: str = "") -> None:
        self._control = control
        self._sink = sink
        self._die = die
        self._token = token
        self._entries = itertools.count(1)
        self._notifications = itertools.count(1)
        self._registered: set[str] = set()
        self._lock = threading.Lock()

    def handlers(self) -> dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]]:
        """By service and rpc, for `grpc.method_handlers_generic_handler`."""
        logs, stream = worker_logs_pb2, log_streaming_pb2
        unary, streaming = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        write: Callable[[Any], bytes] = lambda message: message.SerializeToString()  # noqa: E731  one for all four
        return {
            "ottoscaler.v1.OttoHandlerLogService": {
                "ForwardWorkerLogs": streaming(self._forward_worker_logs, logs.WorkerLogEntry.FromString, write),
                "NotifyWorkerStatus": unary(self._notify, logs.WorkerStatusNotification.FromString, write),
            },
            "ottoscaler.v1.LogStreamingService": {
                "StreamLogs": streaming(self._stream_logs, stream.LogEntry.FromString, write),
                "RegisterWorker": unary(self._register, stream.WorkerRegistration.FromString, write),
            },
        }

    # -- lines

    def _forward_worker_logs(self, entries: Iterator[Any], context: Context) -> Iterator[Any]:
        for status, sequence, behaviour in self._take_all("ForwardWorkerLogs", entries, context):
            yield worker_logs_pb2.LogForwardResponse(
                status=status,
                sequence=sequence,
                throttle_ms=behaviour.throttle_ms,
            )

    def _stream_logs(self, entries: Iterator[Any], context: Context) -> Iterator[Any]:
        for status, sequence, _ in self._take_all("StreamLogs", entries, context):
            yield log_streaming_pb2.LogResponse(status=status, sequence=sequence)

    def _take_all(self, rpc: str, entries: Iterator[Any], context: Context) -> Iterator[tuple[str, int, Behaviour]]:
        """Take one entry after the other; the status and the number of each, once it is safe."""
        self._admit(context)
        for count, entry in enumerate(entries, start=1):
            behaviour = self._wait_willing(context)
            with self._lock:
                sequence = next(self._entries)
                status = behaviour.answer(sequence)
                self._keep(rpc, _entry_record(entry) | {"answer": status, "sequence": sequence}, context)
                if behaviour.die_after and sequence >= behaviour.die_after:
                    self._die()
            if behaviour.cut_after and count >= behaviour.cut_after:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the stream is cut, as was asked for")
            yield status, sequence, behaviour

    # -- states and registrations

    def _notify(self, notification: Any, context: Context) -> Any:
        self._admit(context)
        behaviour = self._wait_willing(context)
        with self._lock:
            sequence = next(self._notifications)
            is_error = behaviour.error and sequence % behaviour.error == 0
            answer = "ERROR" if is_error else "RECEIVED"
            record = {
                "worker_id": notification.worker_id,
                "task_id": notification.task_id,
                "status": Status.Name(notification.status),
                "timestamp": notification.timestamp,
                "reason": notification.reason,
                "metadata": dict(notification.metadata),
            }
            self._keep("NotifyWorkerStatus", record | {"answer": answer, "sequence": sequence}, context)
        return worker_logs_pb2.WorkerStatusAck(status=answer)

    def _register(self, registration: Any, context: Context) -> Any:
        self._admit(context)
        behaviour = self._wait_willing(context)
        worker = registration.worker_id
        with self._lock:
            answer = self._place(worker, behaviour)
            record = {
                "worker_id": worker,
                "task_id": registration.task_id,
                "metadata": _where(registration.metadata),
                "server_endpoint": registration.server_endpoint,
            }
            self._keep("RegisterWorker", record | {"answer": answer}, context)
        return log_streaming_pb2.RegistrationResponse(
            status=answer,
            message={"SERVER_FULL": "no more workers for now", "INVALID_REQUEST": "worker_id is empty"}.get(answer),
            session_id=secrets.token_hex(8),
            config=log_streaming_pb2.LoggingConfig(
                rate_limit=behaviour.rate_limit,
                buffer_size=behaviour.buffer_size,
                max_message_size=behaviour.max_message_size,
                include_metadata=behaviour.include_metadata,
            ),
        )

    def _place(self, worker: str, behaviour: Behaviour) -> str:
        if not worker:
            return "INVALID_REQUEST"
        if worker in self._registered:
            return "ALREADY_REGISTERED"
        if behaviour.max_workers and len(self._registered) >= behaviour.max_workers:
            return "SERVER_FULL"
        self._registered.add(worker)
        return "SUCCESS"

    # -- all

    def _admit(self, context: Context) -> None:
        """Let the call in, if it carries the token."""
        given = [value for name, value in context.invocation_metadata() if name == "authorization"]
        if self._token and given != [f"Bearer {self._token}"]:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "this token is not known" if given else "a token is missing")

    def _wait_willing(self, context: Context) -> Behaviour:
        """How to behave, once nothing says to stall."""
        while (behaviour := self._control.now).stall and context.is_active():
            time.sleep(LOOK_SECONDS)
        if behaviour.away:
            context.abort(grpc.StatusCode.UNAVAILABLE, "away, as was asked for")
        return behaviour

    def _keep(self, rpc: str, record: Record, context: Context) -> None:
        try:
            self._sink.take(rpc, record)
        except OSError as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, f"cannot be stored: {error}")


def _entry_record(entry: Any) -> Record:
    """A LogEntry or a WorkerLogEntry."""
    record = {
        "worker_id": entry.worker_id,
        "task_id": entry.task_id,
        "timestamp": entry.timestamp,
        "level": entry.level,
        "source": entry.source,
        "message": entry.message,
        "metadata": dict(entry.metadata),
    }
    if isinstance(entry, worker_logs_pb2.WorkerLogEntry) and entry.HasField("pod_metadata"):
        record["pod_metadata"] = _where(entry.pod_metadata)
    return record


def _where(metadata: Any) -> Record:
    """A WorkerMetadata."""
    return {
        "pod_name": metadata.pod_name,
        "namespace": metadata.namespace,
        "node_name": metadata.node_name,
        "created_at": metadata.created_at,
        "labels": dict(metadata.labels),
    }
