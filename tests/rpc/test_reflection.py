"""Server reflection: what grpcurl and the like learn of the door."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ottoscaler.rpc.http2.codes import Code
from tests.rpc.stage import call, open_door

pytestmark = pytest.mark.slow_clock


async def test_reflection_lists_what_is_served() -> None:
    """grpcurl and the like find our service, its health and the files, without the .proto files at hand."""
    async with open_door() as scene:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(scene.channel)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="ottoscaler.v1.OttoscalerService"),
        ]
        answers = await call(lambda *args, **options: list(stub.ServerReflectionInfo(*args, **options)), iter(requests))
        names = {service.name for service in answers[0].list_services_response.service}
        assert {"ottoscaler.v1.OttoscalerService", "grpc.health.v1.Health"} <= names
        assert len(answers[1].file_descriptor_response.file_descriptor_proto) == 2


async def test_reflection_knows_what_it_lists_and_each_rpc_of_it() -> None:
    """grpcurl describes all services by their names, and one rpc by its own: each leads to the file that has it."""
    async with open_door() as scene:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(scene.channel)

        async def ask(**words: Any) -> reflection_pb2.ServerReflectionResponse:
            request = reflection_pb2.ServerReflectionRequest(**words)
            (answer,) = await call(
                lambda *args, **more: list(stub.ServerReflectionInfo(*args, **more)), iter([request])
            )
            assert isinstance(answer, reflection_pb2.ServerReflectionResponse)
            return answer

        listed = (await ask(list_services="")).list_services_response.service
        pool = DescriptorPool()
        for service in listed:
            answer = await ask(file_containing_symbol=service.name)
            for raw in reversed(answer.file_descriptor_response.file_descriptor_proto):  # imports come behind
                pool.AddSerializedFile(raw)
        described = [pool.FindServiceByName(service.name) for service in listed]
        for method in (method for service in described for method in service.methods):
            answer = await ask(file_containing_symbol=method.full_name)
            assert answer.WhichOneof("message_response") == "file_descriptor_response", method.full_name
        for name in ("ottoscaler.v1.OttoscalerService.Scale", "ottoscaler.v1", ""):
            assert (await ask(file_containing_symbol=name)).error_response.error_code == Code.NOT_FOUND
