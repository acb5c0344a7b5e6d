"""Server reflection, by which grpcurl and the like learn what is served; v1 and v1alpha are the same bytes.

https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from google.protobuf import text_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default, DescriptorPool
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2 as pb2

from ottoscaler.rpc.door import InvalidCall
from ottoscaler.rpc.http2.codes import Code

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def reflect(data: bytes, services: Sequence[str]) -> bytes:
    """The answer to one question; what is not known is told in the answer."""
    try:
        question = pb2.ServerReflectionRequest.FromString(data)
    except DecodeError as error:
        raise InvalidCall("the message", f"{len(data)} bytes", "a ServerReflectionRequest") from error
    answer = pb2.ServerReflectionResponse(valid_host=question.host, original_request=question)
    try:
        _answer(question, answer, services)
    except KeyError:
        answer.error_response.error_code = Code.NOT_FOUND
        answer.error_response.error_message = "it is not known here"
    return answer.SerializeToString()


def _answer(
    question: pb2.ServerReflectionRequest, answer: pb2.ServerReflectionResponse, services: Sequence[str]
) -> None:
    pool = Default()
    match question.WhichOneof("message_request"):
        case "list_services":
            answer.list_services_response.service.extend(pb2.ServiceResponse(name=name) for name in sorted(services))
        case "file_by_filename":
            _add_files(answer, pool.FindFileByName(question.file_by_filename))
        case "file_containing_symbol":
            _add_files(answer, _file_of(question.file_containing_symbol))
        case "file_containing_extension":
            asked = question.file_containing_extension
            extended = pool.FindMessageTypeByName(asked.containing_type)
            extension = pool.FindExtensionByNumber(extended, asked.extension_number)
            _add_files(answer, pool.FindFileContainingSymbol(extension.full_name))
        case "all_extension_numbers_of_type":
            extended = pool.FindMessageTypeByName(question.all_extension_numbers_of_type)
            answer.all_extension_numbers_response.base_type_name = extended.full_name
            numbers = sorted(extension.number for extension in pool.FindAllExtensions(extended))
            answer.all_extension_numbers_response.extension_number.extend(numbers)
        case _:
            answer.error_response.error_code = Code.INVALID_ARGUMENT
            answer.error_response.error_message = "it asks nothing"


def _file_of(symbol: str) -> FileDescriptor:
    """Where a symbol is defined; an rpc where its service is. Raises KeyError."""
    service, _, method = symbol.rpartition(".")
    for pool in (Default(), _NEWER):
        for name in (symbol, service):
            with suppress(KeyError):
                file: FileDescriptor = pool.FindFileContainingSymbol(name)
                if name == symbol or method in pool.FindServiceByName(name).methods_by_name:
                    return file
    raise KeyError(symbol)


def _newer() -> DescriptorPool:
    """Where v1 is described: v1alpha under another name, as the library has no file of it."""
    alpha, pool = FileDescriptorProto(), DescriptorPool()
    pb2.DESCRIPTOR.CopyToProto(alpha)
    text = text_format.MessageToString(alpha).replace("v1alpha", "v1").replace("deprecated: true", "")
    pool.AddSerializedFile(text_format.Parse(text, FileDescriptorProto()).SerializeToString())
    return pool


_NEWER = _newer()


def _add_files(answer: pb2.ServerReflectionResponse, file: FileDescriptor) -> None:
    """The file and all that it imports, each once."""
    found, left = dict[str, FileDescriptor](), [file]
    while left:
        each = left.pop()
        if each.name not in found:
            found[each.name] = each
            left += each.dependencies
    for each in found.values():
        proto = FileDescriptorProto()
        each.CopyToProto(proto)
        answer.file_descriptor_response.file_descriptor_proto.append(proto.SerializeToString())
