from ottoscaler.rpc.v1 import pipeline_pb2 as _pipeline_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ScaleRequest(_message.Message):
    __slots__ = ("task_id", "repository", "commit_sha", "worker_count", "build_config", "triggered_by", "reason", "metadata")
    class BuildConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    COMMIT_SHA_FIELD_NUMBER: _ClassVar[int]
    WORKER_COUNT_FIELD_NUMBER: _ClassVar[int]
    BUILD_CONFIG_FIELD_NUMBER: _ClassVar[int]
    TRIGGERED_BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    repository: str
    commit_sha: str
    worker_count: int
    build_config: _containers.ScalarMap[str, str]
    triggered_by: str
    reason: str
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, task_id: _Optional[str] = ..., repository: _Optional[str] = ..., commit_sha: _Optional[str] = ..., worker_count: _Optional[int] = ..., build_config: _Optional[_Mapping[str, str]] = ..., triggered_by: _Optional[str] = ..., reason: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ScaleResponse(_message.Message):
    __slots__ = ("status", "message", "processed_count", "worker_pod_names", "started_at", "completed_at", "first_status")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SUCCESS: _ClassVar[ScaleResponse.Status]
        FAILED: _ClassVar[ScaleResponse.Status]
        PARTIAL_SUCCESS: _ClassVar[ScaleResponse.Status]
        ALREADY_PROCESSED: _ClassVar[ScaleResponse.Status]
    SUCCESS: ScaleResponse.Status
    FAILED: ScaleResponse.Status
    PARTIAL_SUCCESS: ScaleResponse.Status
    ALREADY_PROCESSED: ScaleResponse.Status
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PROCESSED_COUNT_FIELD_NUMBER: _ClassVar[int]
    WORKER_POD_NAMES_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_AT_FIELD_NUMBER: _ClassVar[int]
    FIRST_STATUS_FIELD_NUMBER: _ClassVar[int]
    status: ScaleResponse.Status
    message: str
    processed_count: int
    worker_pod_names: _containers.RepeatedScalarFieldContainer[str]
    started_at: str
    completed_at: str
    first_status: ScaleResponse.Status
    def __init__(self, status: _Optional[_Union[ScaleResponse.Status, str]] = ..., message: _Optional[str] = ..., processed_count: _Optional[int] = ..., worker_pod_names: _Optional[_Iterable[str]] = ..., started_at: _Optional[str] = ..., completed_at: _Optional[str] = ..., first_status: _Optional[_Union[ScaleResponse.Status, str]] = ...) -> None: ...

class WorkerStatusRequest(_message.Message):
    __slots__ = ("task_id", "worker_pod_name", "status_filter", "page_size", "page_token")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    WORKER_POD_NAME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    worker_pod_name: str
    status_filter: str
    page_size: int
    page_token: str
    def __init__(self, task_id: _Optional[str] = ..., worker_pod_name: _Optional[str] = ..., status_filter: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class WorkerStatusResponse(_message.Message):
    __slots__ = ("total_count", "running_count", "pending_count", "succeeded_count", "failed_count", "workers", "terminated_count", "next_page_token", "is_truncated")
    TOTAL_COUNT_FIELD_NUMBER: _ClassVar[int]
    RUNNING_COUNT_FIELD_NUMBER: _ClassVar[int]
    PENDING_COUNT_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILED_COUNT_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    TERMINATED_COUNT_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    IS_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    total_count: int
    running_count: int
    pending_count: int
    succeeded_count: int
    failed_count: int
    workers: _containers.RepeatedCompositeFieldContainer[WorkerPodStatus]
    terminated_count: int
    next_page_token: str
    is_truncated: bool
    def __init__(self, total_count: _Optional[int] = ..., running_count: _Optional[int] = ..., pending_count: _Optional[int] = ..., succeeded_count: _Optional[int] = ..., failed_count: _Optional[int] = ..., workers: _Optional[_Iterable[_Union[WorkerPodStatus, _Mapping]]] = ..., terminated_count: _Optional[int] = ..., next_page_token: _Optional[str] = ..., is_truncated: _Optional[bool] = ...) -> None: ...

class WorkerPodStatus(_message.Message):
    __slots__ = ("pod_name", "task_id", "status", "created_at", "started_at", "completed_at", "node_name", "pod_ip", "labels", "error_message")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    POD_NAME_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_AT_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    POD_IP_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    pod_name: str
    task_id: str
    status: str
    created_at: str
    started_at: str
    completed_at: str
    node_name: str
    pod_ip: str
    labels: _containers.ScalarMap[str, str]
    error_message: str
    def __init__(self, pod_name: _Optional[str] = ..., task_id: _Optional[str] = ..., status: _Optional[str] = ..., created_at: _Optional[str] = ..., started_at: _Optional[str] = ..., completed_at: _Optional[str] = ..., node_name: _Optional[str] = ..., pod_ip: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., error_message: _Optional[str] = ...) -> None: ...
