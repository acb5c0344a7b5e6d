from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StageStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STAGE_PENDING: _ClassVar[StageStatus]
    STAGE_RUNNING: _ClassVar[StageStatus]
    STAGE_COMPLETED: _ClassVar[StageStatus]
    STAGE_FAILED: _ClassVar[StageStatus]
    STAGE_CANCELLED: _ClassVar[StageStatus]
    STAGE_SKIPPED: _ClassVar[StageStatus]
    STAGE_RETRYING: _ClassVar[StageStatus]
STAGE_PENDING: StageStatus
STAGE_RUNNING: StageStatus
STAGE_COMPLETED: StageStatus
STAGE_FAILED: StageStatus
STAGE_CANCELLED: StageStatus
STAGE_SKIPPED: StageStatus
STAGE_RETRYING: StageStatus

class PipelineRequest(_message.Message):
    __slots__ = ("pipeline_id", "name", "stages", "repository", "commit_sha", "triggered_by", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PIPELINE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    COMMIT_SHA_FIELD_NUMBER: _ClassVar[int]
    TRIGGERED_BY_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    pipeline_id: str
    name: str
    stages: _containers.RepeatedCompositeFieldContainer[PipelineStage]
    repository: str
    commit_sha: str
    triggered_by: str
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, pipeline_id: _Optional[str] = ..., name: _Optional[str] = ..., stages: _Optional[_Iterable[_Union[PipelineStage, _Mapping]]] = ..., repository: _Optional[str] = ..., commit_sha: _Optional[str] = ..., triggered_by: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class PipelineStage(_message.Message):
    __slots__ = ("stage_id", "type", "name", "worker_count", "depends_on", "config", "image", "command", "args", "timeout_seconds", "retry_policy")
    class ConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    STAGE_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    WORKER_COUNT_FIELD_NUMBER: _ClassVar[int]
    DEPENDS_ON_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RETRY_POLICY_FIELD_NUMBER: _ClassVar[int]
    stage_id: str
    type: str
    name: str
    worker_count: int
    depends_on: _containers.RepeatedScalarFieldContainer[str]
    config: _containers.ScalarMap[str, str]
    image: str
    command: _containers.RepeatedScalarFieldContainer[str]
    args: _containers.RepeatedScalarFieldContainer[str]
    timeout_seconds: int
    retry_policy: RetryPolicy
    def __init__(self, stage_id: _Optional[str] = ..., type: _Optional[str] = ..., name: _Optional[str] = ..., worker_count: _Optional[int] = ..., depends_on: _Optional[_Iterable[str]] = ..., config: _Optional[_Mapping[str, str]] = ..., image: _Optional[str] = ..., command: _Optional[_Iterable[str]] = ..., args: _Optional[_Iterable[str]] = ..., timeout_seconds: _Optional[int] = ..., retry_policy: _Optional[_Union[RetryPolicy, _Mapping]] = ...) -> None: ...

class RetryPolicy(_message.Message):
    __slots__ = ("max_attempts", "retry_delay_seconds", "retryable_failures")
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    RETRY_DELAY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FAILURES_FIELD_NUMBER: _ClassVar[int]
    max_attempts: int
    retry_delay_seconds: int
    retryable_failures: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, max_attempts: _Optional[int] = ..., retry_delay_seconds: _Optional[int] = ..., retryable_failures: _Optional[_Iterable[str]] = ...) -> None: ...

class PipelineProgress(_message.Message):
    __slots__ = ("pipeline_id", "stage_id", "status", "message", "worker_pod_names", "progress_percentage", "timestamp", "started_at", "completed_at", "error_message", "metrics")
    PIPELINE_ID_FIELD_NUMBER: _ClassVar[int]
    STAGE_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    WORKER_POD_NAMES_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_PERCENTAGE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_AT_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    pipeline_id: str
    stage_id: str
    status: StageStatus
    message: str
    worker_pod_names: _containers.RepeatedScalarFieldContainer[str]
    progress_percentage: int
    timestamp: str
    started_at: str
    completed_at: str
    error_message: str
    metrics: StageMetrics
    def __init__(self, pipeline_id: _Optional[str] = ..., stage_id: _Optional[str] = ..., status: _Optional[_Union[StageStatus, str]] = ..., message: _Optional[str] = ..., worker_pod_names: _Optional[_Iterable[str]] = ..., progress_percentage: _Optional[int] = ..., timestamp: _Optional[str] = ..., started_at: _Optional[str] = ..., completed_at: _Optional[str] = ..., error_message: _Optional[str] = ..., metrics: _Optional[_Union[StageMetrics, _Mapping]] = ...) -> None: ...

class StageMetrics(_message.Message):
    __slots__ = ("duration_seconds", "successful_workers", "failed_workers", "total_workers", "avg_cpu_usage", "avg_memory_mb")
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SUCCESSFUL_WORKERS_FIELD_NUMBER: _ClassVar[int]
    FAILED_WORKERS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_WORKERS_FIELD_NUMBER: _ClassVar[int]
    AVG_CPU_USAGE_FIELD_NUMBER: _ClassVar[int]
    AVG_MEMORY_MB_FIELD_NUMBER: _ClassVar[int]
    duration_seconds: int
    successful_workers: int
    failed_workers: int
    total_workers: int
    avg_cpu_usage: float
    avg_memory_mb: float
    def __init__(self, duration_seconds: _Optional[int] = ..., successful_workers: _Optional[int] = ..., failed_workers: _Optional[int] = ..., total_workers: _Optional[int] = ..., avg_cpu_usage: _Optional[float] = ..., avg_memory_mb: _Optional[float] = ...) -> None: ...
