"""How a command calls the gRPC door: address, TLS and token from flags, errors as one sentence.

An error's sentence names what was wrong as the server's details say it: field and value for INVALID_ARGUMENT.
"""

from __future__ import annotations

import argparse
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import ottoscaler.rpc  # noqa: F401  first: it keeps gRPC's core from writing to stderr

# isort: split
import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from ottoscaler.errors import FixYourCall, GiveUp, OttoscalerError, Unavailable
from ottoscaler.rpc.v1.scaling_pb2_grpc import OttoscalerServiceStub

T = TypeVar("T")
TOKEN = "OTTOSCALER_TOKEN"
DETAILS = "grpc-status-details-bin"
MOST_BYTES = 64 << 20
"""Of an answer: 10,000 workers are below it."""
KEEPALIVE = {
    "grpc.keepalive_time_ms": 20_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.http2.ping_timeout_ms": 10_000,  # the one that newer versions of gRPC's core look at
    "grpc.keepalive_permit_without_calls": 0,
    "grpc.http2.max_pings_without_data": 0,  # no limit: a call may wait for hours without a message
}
"""A server that says nothing while a call waits is asked for a sign of life, so that no call waits for a dead one."""
PASSING = {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}
WRONG = {"INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "ALREADY_EXISTS", "NOT_FOUND"}


class WrongCall(FixYourCall):
    """The server refuses the call as it is."""


class Passing(Unavailable):
    """The server is away or has too much to do: the same call may go through later."""


class Unanswered(GiveUp):
    """The call ended without an answer, by a fault of the server, or at one that knows no such call."""


class Server:
    """The door as one command calls it; made by `open_server`."""

    def __init__(self, address: str, stub: Any, token: str, timeout: float | None) -> None:
        self.address = address
        self.stub = stub
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._timeout = timeout

    def ask(self, rpc: Callable[..., T], request: object) -> T:
        """Call an rpc of `stub` that has one answer. Raises WrongCall, Passing or Unanswered."""
        try:
            return rpc(request, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise error_of(error, self.address) from error

    def stream(self, rpc: Callable[..., Any], request: object) -> Iterator[Any]:
        """Call an rpc that answers with a stream. Raises as `ask`."""
        call = rpc(request, timeout=self._timeout, metadata=self._metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise error_of(error, self.address) from error
        finally:
            call.cancel()


@contextmanager
def open_server(args: argparse.Namespace) -> Iterator[Server]:
    """The door that the flags name. Raises WrongCall where the address is none, or a file cannot be read."""
    _check_address(args.server)
    options = [("grpc.max_receive_message_length", MOST_BYTES), *KEEPALIVE.items()]
    token = os.environ.get(TOKEN, "")
    if args.token_file is not None:
        token = _read("--token-file", args.token_file).decode(errors="replace").strip()
    if not (token.isascii() and token.isprintable()):
        where = TOKEN if args.token_file is None else f"--token-file {args.token_file}"
        raise WrongCall(f"the token of {where} is none, expected one line of visible ASCII characters")
    credentials = _credentials(args)
    channel = (
        grpc.insecure_channel(args.server, options)
        if credentials is None
        else grpc.secure_channel(args.server, credentials, options)
    )
    with channel:
        stub = OttoscalerServiceStub(channel)
        yield Server(args.server, stub, token, args.timeout)


def error_of(error: grpc.RpcError, address: str) -> OttoscalerError:
    """The error of a call as a sentence; gRPC's is the call, too, and has its code and details."""
    code, said = error.code().name, error.details() or ""
    wrong = [violation.description or violation.field for violation in _violations(error)]
    if wrong:
        return WrongCall("\n".join(wrong))
    if code in WRONG:
        return WrongCall(said or code)
    if code in PASSING:
        return Passing(f"{address}: {said or code}", address=address)
    return Unanswered(f"{address}: {said} ({code})" if said else f"{address}: {code}")


def _violations(error: grpc.RpcError) -> list[error_details_pb2.BadRequest.FieldViolation]:
    """What `google.rpc.BadRequest` names, where the error carries one."""
    trailer = next((item.value for item in error.trailing_metadata() or () if item.key == DETAILS), b"")
    found = error_details_pb2.BadRequest()
    try:
        for detail in status_pb2.Status.FromString(trailer).details:
            if detail.Unpack(found):
                return list(found.field_violations)
    except DecodeError:
        pass
    return []


def _check_address(address: str) -> None:
    """Refuse what gRPC would take for another place: port 443 where none is given, the remainder of one too large."""
    host, _, port = address.rpartition(":")
    is_whole = port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= 65535
    if "://" not in address and not address.startswith("unix:") and not (host and is_whole):
        raise WrongCall(f"--server is {address!r}, expected a host name or address with a port, such as 127.0.0.1:9090")


def _credentials(args: argparse.Namespace) -> grpc.ChannelCredentials | None:
    if (args.cert is None) != (args.key is None):
        raise WrongCall("--cert and --key are given together, or not at all")
    if not (args.tls or args.ca or args.cert):
        return None
    ca = _read("--ca", args.ca) if args.ca else None
    try:  # gRPC would only say that it cannot speak TLS
        context = ssl.create_default_context(cadata=ca and ca.decode("ascii", errors="ignore"))
        if args.cert is not None:
            _read("--key", args.key)
            _read("--cert", args.cert)
            context.load_cert_chain(args.cert, args.key, password=_no_password)
    except ssl.SSLError as error:
        given = " ".join(f"--{name} {file}" for name in ("ca", "cert", "key") if (file := getattr(args, name)))
        expected = "certificates and their key in PEM, not encrypted" if args.cert else "certificates in PEM"
        raise WrongCall(f"{given}: expected {expected} ({error})") from error
    if args.cert is None:
        return grpc.ssl_channel_credentials(ca)
    return grpc.ssl_channel_credentials(ca, _read("--key", args.key), _read("--cert", args.cert))


def _no_password() -> str:
    """For a key that is encrypted: the question for its password would be asked of whoever sits at the terminal."""
    return ""


def _read(flag: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise WrongCall(f"{flag} is {str(file)!r}: {error.strerror}") from error
