"""`ottoscaler handler`: a small otto-handler that prints or stores what it receives, and misbehaves where told to."""

import argparse
import errno
import os
import signal
import socket
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ottoscaler.cli.token_file import read_token
from ottoscaler.errors import FixYourCall

if TYPE_CHECKING:
    from ottoscaler.otto_handler.behaviour import Behaviour, Control
    from ottoscaler.otto_handler.store import Sink

HANDLES_SIGNALS = True
MISBEHAVIOUR = {
    "retry": "answer one of N entries RETRY",
    "drop": "answer one of N entries DROP",
    "error": "answer one of N notifications of states ERROR",
    "throttle_ms": "ask for N milliseconds before a worker's next line",
    "cut_after": "cut each stream after N entries",
    "die_after": "end as if killed after N entries in all",
    "max_workers": "answer SERVER_FULL to workers that register beyond N",
    "rate_limit": "LoggingConfig: lines a second of one worker",
    "buffer_size": "LoggingConfig: lines that a worker holds back",
    "max_message_size": "LoggingConfig: bytes of one line",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add where to listen, what to do with what comes, and how to misbehave."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8080, metavar="N", help="port; 0: a free one (default: 8080)")
    parser.add_argument("--store", type=Path, metavar="DIR", help="append JSON lines to files in DIR, print nothing")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve TLS with this chain, in PEM")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="key of the certificate, in PEM")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="take only calls with the bearer token in FILE")
    group = parser.add_argument_group("misbehaviour", "0 is off; the entries of all streams are counted together.")
    for name, summary in MISBEHAVIOUR.items():
        group.add_argument(f"--{name.replace('_', '-')}", type=_count, default=0, metavar="N", help=summary)
    group.add_argument("--stall", action="store_true", help="take nothing, with all connections open")
    group.add_argument("--away", action="store_true", help="answer every call UNAVAILABLE")
    group.add_argument("--no-metadata", action="store_true", help="LoggingConfig: entries without metadata")
    group.add_argument(
        "--control",
        type=Path,
        metavar="FILE",
        help='a JSON object that may change while the handler runs, such as {"stall": true, "retry": 0}: it wins over '
        "the flags, for as long as it is there",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT, which is how it is meant to end."""
    import trio

    from ottoscaler.cli.running import run_until_signal
    from ottoscaler.otto_handler.behaviour import Control

    try:
        _check_place(args.host, args.port)
        certificate, token = _certificate(args), read_token(args.token_file) if args.token_file else ""
        sink = _sink(args.store)
    except OSError as error:
        print(f"ottoscaler handler: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except FixYourCall as error:
        print(f"ottoscaler handler: {error}", file=sys.stderr)
        return 2

    async def serve(_: trio.Nursery) -> int:
        return await _serve(args, Control(behaviour_from(args), args.control), sink, certificate, token)

    code = trio.run(run_until_signal, serve)
    return 0 if code in (130, 143) else code


async def _serve(
    args: argparse.Namespace, control: "Control", sink: "Sink", certificate: tuple[bytes, bytes] | None, token: str
) -> int:
    """Serve for ever; print one line when ready."""
    from ottoscaler.otto_handler.server import open_otto_handler

    try:
        with open_otto_handler(
            sink, host=args.host, port=args.port, control=control, certificate=certificate, token=token, die=_die
        ) as handler:
            print(f"ready at {args.host}:{handler.port}", flush=True)
            await _tell_problems(control)
    except OSError as error:
        print(f"ottoscaler handler: {error}", file=sys.stderr)
    return 1


async def _tell_problems(control: "Control") -> NoReturn:
    """For ever: say what is wrong with the control file, each time that it is something else."""
    import trio

    told = ""
    while True:
        _ = control.now
        if control.problem != told:
            told = control.problem
            print(f"ottoscaler handler: {told or 'the control file is understood again'}", file=sys.stderr, flush=True)
        await trio.sleep(0.25)


def behaviour_from(args: argparse.Namespace) -> "Behaviour":
    """What the flags say."""
    from ottoscaler.otto_handler.behaviour import Behaviour

    counts = {name: getattr(args, name) for name in MISBEHAVIOUR}
    return Behaviour(stall=args.stall, away=args.away, include_metadata=not args.no_metadata, **counts)


def _sink(folder: Path | None) -> "Sink":
    from ottoscaler.otto_handler.store import Printed, Stored

    return Stored(folder) if folder else Printed()


def _check_place(host: str, port: int) -> None:
    """Refuse what nobody can listen on; gRPC would not say why. That the port is taken is for the server to say."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, _, _, address = found[0]
        with socket.socket(family, kind) as probe:
            probe.bind(address)
    except PermissionError as error:
        raise FixYourCall(f"--port is {port}: expected one that we may listen on ({error.strerror})") from error
    except (OSError, UnicodeError) as error:  # the latter of names that can be none
        if getattr(error, "errno", None) != errno.EADDRINUSE:
            why = getattr(error, "strerror", None) or error
            raise FixYourCall(f"--host is {host!r}: expected an address or name of this machine ({why})") from error


def _certificate(args: argparse.Namespace) -> tuple[bytes, bytes] | None:
    """Key and chain, in PEM. FixYourCall where they are none."""
    if args.tls_cert is None:
        if args.tls_key is not None:
            raise FixYourCall(f"--tls-key is {str(args.tls_key)!r}: expected --tls-cert, too")
        return None
    key = args.tls_key or args.tls_cert
    pems = _read("--tls-key" if args.tls_key else "--tls-cert", key), _read("--tls-cert", args.tls_cert)
    try:  # gRPC would only say that it cannot listen
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(args.tls_cert, key, password=lambda: "")
    except ssl.SSLError as error:
        given = f"--tls-cert is {str(args.tls_cert)!r}" + (f", --tls-key {str(key)!r}" if args.tls_key else "")
        raise FixYourCall(f"{given}: expected a certificate and its key in PEM, not encrypted ({error})") from error
    return pems


def _read(flag: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise FixYourCall(f"{flag} is {str(file)!r}: {error.strerror}") from error


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a port from 1 to 65535, or 0 for a free one")
    return int(text)


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 0 to {2**31 - 1}")
    return int(text)
