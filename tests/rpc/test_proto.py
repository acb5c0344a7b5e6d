"""The .proto files and the code made from them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from ottoscaler.rpc.v1 import log_streaming_pb2, pipeline_pb2, scaling_pb2, worker_logs_pb2

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "ottoscaler" / "rpc" / "v1"
MODULES = (scaling_pb2, pipeline_pb2, worker_logs_pb2, log_streaming_pb2)

# number name, in the order of the contract that otto-handlers in use speak
CONTRACT = {
    "ScaleRequest": "1 task_id 2 repository 3 commit_sha 4 worker_count 5 build_config "
    "6 triggered_by 7 reason 8 metadata",
    "ScaleResponse": "1 status 2 message 3 processed_count 4 worker_pod_names 5 started_at 6 completed_at "
    "100 first_status",
    "WorkerStatusRequest": "1 task_id 2 worker_pod_name 3 status_filter 101 page_size 102 page_token",
    "WorkerStatusResponse": "1 total_count 2 running_count 3 pending_count 4 succeeded_count 5 failed_count 6 workers "
    "100 terminated_count 101 next_page_token 102 is_truncated",
    "WorkerPodStatus": "1 pod_name 2 task_id 3 status 4 created_at 5 started_at 6 completed_at 7 node_name 8 pod_ip "
    "9 labels 10 error_message",
    "WorkerLogEntry": "1 worker_id 2 task_id 3 timestamp 4 level 5 source 6 message 7 pod_metadata 8 metadata",
    "WorkerMetadata": "1 pod_name 2 namespace 3 node_name 4 created_at 5 labels",
    "LogForwardResponse": "1 status 2 message 3 sequence 4 throttle_ms",
    "WorkerStatusNotification": "1 worker_id 2 task_id 3 status 4 timestamp 5 reason 6 metadata",
    "WorkerStatusAck": "1 status 2 message",
    "LogEntry": "1 worker_id 2 task_id 3 timestamp 4 level 5 source 6 message 7 metadata",
    "LogResponse": "1 status 2 message 3 sequence",
    "WorkerRegistration": "1 worker_id 2 task_id 3 metadata 4 server_endpoint",
    "RegistrationResponse": "1 status 2 message 3 session_id 4 config",
    "LoggingConfig": "1 rate_limit 2 buffer_size 3 max_message_size 4 include_metadata",
    "PipelineRequest": "1 pipeline_id 2 name 3 stages 4 repository 5 commit_sha 6 triggered_by 7 metadata",
    "PipelineStage": "1 stage_id 2 type 3 name 4 worker_count 5 depends_on 6 config 7 image 8 command 9 args "
    "10 timeout_seconds 11 retry_policy",
    "RetryPolicy": "1 max_attempts 2 retry_delay_seconds 3 retryable_failures",
    "PipelineProgress": "1 pipeline_id 2 stage_id 3 status 4 message 5 worker_pod_names 6 progress_percentage "
    "7 timestamp 8 started_at 9 completed_at 10 error_message 11 metrics",
    "StageMetrics": "1 duration_seconds 2 successful_workers 3 failed_workers 4 total_workers 5 avg_cpu_usage "
    "6 avg_memory_mb",
}
NOT_TEXT = {
    FieldDescriptor.TYPE_INT32: "worker_count processed_count total_count running_count pending_count succeeded_count "
    "failed_count terminated_count page_size throttle_ms rate_limit buffer_size max_message_size timeout_seconds "
    "max_attempts retry_delay_seconds progress_percentage duration_seconds successful_workers failed_workers "
    "total_workers",
    FieldDescriptor.TYPE_INT64: "sequence",
    FieldDescriptor.TYPE_BOOL: "include_metadata is_truncated",
    FieldDescriptor.TYPE_FLOAT: "avg_cpu_usage avg_memory_mb",
    FieldDescriptor.TYPE_MESSAGE: "build_config metadata labels workers pod_metadata config stages retry_policy "
    "metrics",
}
ENUMS = {
    "ScaleResponse.Status": "SUCCESS FAILED PARTIAL_SUCCESS ALREADY_PROCESSED",
    "LogForwardResponse.Status": "ACK RETRY DROP",
    "WorkerStatusNotification.StatusType": "CREATED RUNNING COMPLETED FAILED TERMINATED",
    "WorkerStatusAck.Status": "RECEIVED IGNORED ERROR",
    "LogResponse.Status": "ACK RETRY DROP",
    "RegistrationResponse.Status": "SUCCESS ALREADY_REGISTERED SERVER_FULL INVALID_REQUEST",
    "StageStatus": "STAGE_PENDING STAGE_RUNNING STAGE_COMPLETED STAGE_FAILED STAGE_CANCELLED STAGE_SKIPPED "
    "STAGE_RETRYING",
}
SERVICES = {
    "OttoscalerService.ScaleUp": "ScaleRequest ScaleResponse",
    "OttoscalerService.ScaleDown": "ScaleRequest ScaleResponse",
    "OttoscalerService.GetWorkerStatus": "WorkerStatusRequest WorkerStatusResponse",
    "OttoscalerService.ExecutePipeline": "PipelineRequest stream PipelineProgress",
    "OttoHandlerLogService.ForwardWorkerLogs": "stream WorkerLogEntry stream LogForwardResponse",
    "OttoHandlerLogService.NotifyWorkerStatus": "WorkerStatusNotification WorkerStatusAck",
    "LogStreamingService.StreamLogs": "stream LogEntry stream LogResponse",
    "LogStreamingService.RegisterWorker": "WorkerRegistration RegistrationResponse",
}


def _message(name: str) -> type[Message]:
    found: type[Message] = next(getattr(module, name) for module in MODULES if hasattr(module, name))
    return found


def test_generated_code_is_what_the_files_give(tmp_path: Path) -> None:
    """`make proto` would change nothing."""
    protos = [str(path.relative_to(ROOT)) for path in sorted(FOLDER.glob("*.proto"))]
    outs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I.", *outs, *protos], cwd=ROOT, check=True)
    made = {path.name: path.read_text() for path in (tmp_path / "ottoscaler" / "rpc" / "v1").iterdir()}
    committed = {path.name: path.read_text() for path in FOLDER.glob("*_pb2*.py*")}
    assert committed == made


@pytest.mark.parametrize("name", CONTRACT)
def test_fields_have_the_names_and_numbers_of_the_contract(name: str) -> None:
    """An otto-handler that speaks the contract is understood: same names, same numbers, same types, nothing else."""
    fields = _message(name).DESCRIPTOR.fields
    words = CONTRACT[name].split()
    assert {field.number: field.name for field in fields} == dict(zip(map(int, words[::2]), words[1::2], strict=True))
    for field in fields:
        expected = next((kind for kind, names in NOT_TEXT.items() if field.name in names.split()), None)
        if field.enum_type is not None:
            assert field.name in ("status", "first_status")
        else:
            is_message = name == "WorkerRegistration" and field.name == "metadata"
            kind = FieldDescriptor.TYPE_MESSAGE if is_message else expected or FieldDescriptor.TYPE_STRING
            assert field.type == kind, field.full_name


def test_every_message_is_in_the_contract() -> None:
    """No message was added or forgotten."""
    defined = {name for module in MODULES for name in module.DESCRIPTOR.message_types_by_name}
    assert defined == set(CONTRACT)


@pytest.mark.parametrize("name", ENUMS)
def test_enums_count_from_zero_in_the_order_of_the_contract(name: str) -> None:
    """The numbers of every enum are those of the contract."""
    outer, _, inner = name.partition(".")
    enum = _message(outer).DESCRIPTOR.enum_types_by_name[inner] if inner else pipeline_pb2.StageStatus.DESCRIPTOR
    assert [(value.name, value.number) for value in enum.values] == [
        (word, number) for number, word in enumerate(ENUMS[name].split())
    ]


def test_services_are_those_of_the_contract() -> None:
    """Every rpc has its request, its answer and its streams; package and names make the path that clients call."""
    found = {}
    for module in MODULES:
        assert module.DESCRIPTOR.package == "ottoscaler.v1"
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                given = ("stream " if method.client_streaming else "") + method.input_type.name
                back = ("stream " if method.server_streaming else "") + method.output_type.name
                found[f"{service.name}.{method.name}"] = f"{given} {back}"
    assert found == SERVICES
