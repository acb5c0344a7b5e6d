from ottoscaler.rpc.v1 import worker_logs_pb2 as _worker_logs_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LogEntry(_message.Message):
    __slots__ = ("worker_id", "task_id", "timestamp", "level", "source", "message", "metadata")
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
    METADATA_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    task_id: str
    timestamp: str
    level: str
    source: str
    message: str
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, worker_id: _Optional[str] = ..., task_id: _Optional[str] = ..., timestamp: _Optional[str] = ..., level: _Optional[str] = ..., source: _Optional[str] = ..., message: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class LogResponse(_message.Message):
    __slots__ = ("status", "message", "sequence")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ACK: _ClassVar[LogResponse.Status]
        RETRY: _ClassVar[LogResponse.Status]
        DROP: _ClassVar[LogResponse.Status]
    ACK: LogResponse.Status
    RETRY: LogResponse.Status
    DROP: LogResponse.Status
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    status: LogResponse.Status
    message: str
    sequence: int
    def __init__(self, status: _Optional[_Union[LogResponse.Status, str]] = ..., message: _Optional[str] = ..., sequence: _Optional[int] = ...) -> None: ...

class WorkerRegistration(_message.Message):
    __slots__ = ("worker_id", "task_id", "metadata", "server_endpoint")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    SERVER_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    task_id: str
    metadata: _worker_logs_pb2.WorkerMetadata
    server_endpoint: str
    def __init__(self, worker_id: _Optional[str] = ..., task_id: _Optional[str] = ..., metadata: _Optional[_Union[_worker_logs_pb2.WorkerMetadata, _Mapping]] = ..., server_endpoint: _Optional[str] = ...) -> None: ...

class RegistrationResponse(_message.Message):
    __slots__ = ("status", "message", "session_id", "config")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SUCCESS: _ClassVar[RegistrationResponse.Status]
        ALREADY_REGISTERED: _ClassVar[RegistrationResponse.Status]
        SERVER_FULL: _ClassVar[RegistrationResponse.Status]
        INVALID_REQUEST: _ClassVar[RegistrationResponse.Status]
    SUCCESS: RegistrationResponse.Status
    ALREADY_REGISTERED: RegistrationResponse.Status
    SERVER_FULL: RegistrationResponse.Status
    INVALID_REQUEST: RegistrationResponse.Status
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    status: RegistrationResponse.Status
    message: str
    session_id: str
    config: LoggingConfig
    def __init__(self, status: _Optional[_Union[RegistrationResponse.Status, str]] = ..., message: _Optional[str] = ..., session_id: _Optional[str] = ..., config: _Optional[_Union[LoggingConfig, _Mapping]] = ...) -> None: ...

class LoggingConfig(_message.Message):
    __slots__ = ("rate_limit", "buffer_size", "max_message_size", "include_metadata")
    RATE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    BUFFER_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_METADATA_FIELD_NUMBER: _ClassVar[int]
    rate_limit: int
    buffer_size: int
    max_message_size: int
    include_metadata: bool
    def __init__(self, rate_limit: _Optional[int] = ..., buffer_size: _Optional[int] = ..., max_message_size: _Optional[int] = ..., include_metadata: _Optional[bool] = ...) -> None: ...
