from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkerMetadata(_message.Message):
    __slots__ = ("pod_name", "namespace", "node_name", "created_at", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    POD_NAME_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    pod_name: str
    namespace: str
    node_name: str
    created_at: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, pod_name: _Optional[str] = ..., namespace: _Optional[str] = ..., node_name: _Optional[str] = ..., created_at: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class WorkerLogEntry(_message.Message):
    __slots__ = ("worker_id", "task_id", "timestamp", "level", "source", "message", "pod_metadata", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    POD_METADATA_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    task_id: str
    timestamp: str
    level: str
    source: str
    message: str
    pod_metadata: WorkerMetadata
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, worker_id: _Optional[str] = ..., task_id: _Optional[str] = ..., timestamp: _Optional[str] = ..., level: _Optional[str] = ..., source: _Optional[str] = ..., message: _Optional[str] = ..., pod_metadata: _Optional[_Union[WorkerMetadata, _Mapping]] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class LogForwardResponse(_message.Message):
    __slots__ = ("status", "message", "sequence", "throttle_ms")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ACK: _ClassVar[LogForwardResponse.Status]
        RETRY: _ClassVar[LogForwardResponse.Status]
        DROP: _ClassVar[LogForwardResponse.Status]
    ACK: LogForwardResponse.Status
    RETRY: LogForwardResponse.Status
    DROP: LogForwardResponse.Status
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    THROTTLE_MS_FIELD_NUMBER: _ClassVar[int]
    status: LogForwardResponse.Status
    message: str
    sequence: int
    throttle_ms: int
    def __init__(self, status: _Optional[_Union[LogForwardResponse.Status, str]] = ..., message: _Optional[str] = ..., sequence: _Optional[int] = ..., throttle_ms: _Optional[int] = ...) -> None: ...

class WorkerStatusNotification(_message.Message):
    __slots__ = ("worker_id", "task_id", "status", "timestamp", "reason", "metadata")
    class StatusType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CREATED: _ClassVar[WorkerStatusNotification.StatusType]
        RUNNING: _ClassVar[WorkerStatusNotification.StatusType]
        COMPLETED: _ClassVar[WorkerStatusNotification.StatusType]
        FAILED: _ClassVar[WorkerStatusNotification.StatusType]
        TERMINATED: _ClassVar[WorkerStatusNotification.StatusType]
    CREATED: WorkerStatusNotification.StatusType
    RUNNING: WorkerStatusNotification.StatusType
    COMPLETED: WorkerStatusNotification.StatusType
    FAILED: WorkerStatusNotification.StatusType
    TERMINATED: WorkerStatusNotification.StatusType
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    task_id: str
    status: WorkerStatusNotification.StatusType
    timestamp: str
    reason: str
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, worker_id: _Optional[str] = ..., task_id: _Optional[str] = ..., status: _Optional[_Union[WorkerStatusNotification.StatusType, str]] = ..., timestamp: _Optional[str] = ..., reason: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class WorkerStatusAck(_message.Message):
    __slots__ = ("status", "message")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        RECEIVED: _ClassVar[WorkerStatusAck.Status]
        IGNORED: _ClassVar[WorkerStatusAck.Status]
        ERROR: _ClassVar[WorkerStatusAck.Status]
    RECEIVED: WorkerStatusAck.Status
    IGNORED: WorkerStatusAck.Status
    ERROR: WorkerStatusAck.Status
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    status: WorkerStatusAck.Status
    message: str
    def __init__(self, status: _Optional[_Union[WorkerStatusAck.Status, str]] = ..., message: _Optional[str] = ...) -> None: ...
