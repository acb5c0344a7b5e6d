"""`ottoscaler call`: ask a running Ottoscaler by gRPC, as otto-handler does, to scale, to tell, to run a pipeline."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ottoscaler.errors import FixYourCall

if TYPE_CHECKING:
    from ottoscaler.cli.calling import Server

DEFAULT_SERVER = "127.0.0.1:9090"
SERVER = "OTTOSCALER_SERVER"
HEADER = ("NAME", "STATUS", "TASK", "STARTED", "ENDED", "NODE", "ERROR")
STATES = ("pending", "running", "succeeded", "failed", "terminated")


class BadArgument(FixYourCall):
    """An argument of the command is wrong."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add one command for each rpc."""
    calls = parser.add_subparsers(title="calls", metavar="CALL", dest="call", required=True)

    def call(name: str, summary: str) -> argparse.ArgumentParser:
        added = calls.add_parser(name, help=summary, description=f"{summary.capitalize()}.", allow_abbrev=False)
        _add_server_flags(added)
        return added

    up = call(
        "scale-up",
        "add workers and wait until they were accepted; exit code 1 where one was not",
    )
    up.add_argument("--workers", type=int, required=True, metavar="N", help="how many to add")
    up.add_argument("--wait", action="store_true", help="wait until all have ended; exit code 1 where one failed")
    down = call("scale-down", "stop workers until no more than a target remain")
    down.add_argument("--target", type=int, required=True, metavar="N", help="how many may remain; 0: none")
    for each in (up, down):
        _add_event_flags(each)
    status = call("status", "list what runs and what has ended")
    status.add_argument("--task", default="", metavar="TEXT", help="of this task only")
    status.add_argument("--pod", default="", metavar="NAME", help="this worker only")
    status.add_argument("--state", default="", choices=STATES, help="list only these; the counts are of all")
    status.add_argument("-o", "--output", choices=["json"], help="one JSON object per worker")
    pipeline = call("pipeline", "run the stages of a YAML file and show each change; exit code 1 where one failed")
    pipeline.add_argument("file", metavar="FILE.yaml", help="the fields of a PipelineRequest")
    pipeline.add_argument("--id", default="", metavar="TEXT", help="pipeline_id: the same id again joins the pipeline")
    pipeline.add_argument("--cancel-on-exit", action="store_true", help="end the pipeline when this command ends")


def _add_server_flags(parser: argparse.ArgumentParser) -> None:
    """Add how to reach the door."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "--server",
        default=os.environ.get(SERVER) or DEFAULT_SERVER,
        metavar="HOST:PORT",
        help=f"the gRPC door of an Ottoscaler (default: {DEFAULT_SERVER}) [{SERVER}]",
    )
    group.add_argument("--tls", action="store_true", help="speak TLS, with the authorities that this machine trusts")
    group.add_argument("--ca", type=Path, metavar="FILE", help="speak TLS, with this authority, in PEM")
    group.add_argument("--cert", type=Path, metavar="FILE", help="our certificate, in PEM (mutual TLS)")
    group.add_argument("--key", type=Path, metavar="FILE", help="its key, in PEM")
    group.add_argument("--token-file", type=Path, metavar="FILE", help="holds the bearer token [OTTOSCALER_TOKEN]")
    group.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="how long to wait for an answer")


def _add_event_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", default="", metavar="TEXT", help="the task they belong to")
    parser.add_argument("--repository", default="", metavar="TEXT", help="for the workers")
    parser.add_argument("--commit", default="", metavar="SHA", help="for the workers")
    parser.add_argument("--triggered-by", default="", metavar="TEXT", help="who or what asks")
    parser.add_argument("--reason", default="", metavar="TEXT", help="why")
    for flag, what in (("--config", "build_config"), ("--meta", "metadata")):
        parser.add_argument(
            flag, action="append", default=[], metavar="NAME=VALUE", help=f"{what} for the workers; may be repeated"
        )
    parser.add_argument(
        "--request-id", default="", metavar="TEXT", help="the same id again changes nothing, and ends as before"
    )


def run(args: argparse.Namespace) -> int:
    """Call; 0 where all went well, 1 where it did not or the server is away, 2 where the call is wrong."""
    from ottoscaler.cli.calling import open_server

    _check_texts(vars(args).values())
    with open_server(args) as server:
        match args.call:
            case "scale-up":
                return _scale(args, server, server.stub.ScaleUp, args.workers, "accepted")
            case "scale-down":
                return _scale(args, server, server.stub.ScaleDown, args.target, "stopped")
            case "status":
                return _status(args, server)
            case _:
                from ottoscaler.cli.call_pipeline import run_pipeline

                return run_pipeline(server, Path(args.file), args.id, args.cancel_on_exit)


def _check_texts(values: Iterable[Any]) -> None:
    """Refuse bytes of the command line that are no UTF-8: no message can carry them."""
    texts = (text for value in values for text in (value if isinstance(value, list) else [value]))
    for text in texts:
        if isinstance(text, str) and (raw := text.encode(errors="surrogateescape")) != text.encode(errors="replace"):
            raise BadArgument(f"an argument is {raw!r}, expected UTF-8 text")


def _scale(args: argparse.Namespace, server: Server, rpc: Any, count: int, done: str) -> int:
    from ottoscaler.rpc.v1.scaling_pb2 import ScaleResponse

    answer = server.ask(rpc, scale_request(args, count))
    for name in answer.worker_pod_names:
        print(name)
    kind = ScaleResponse.Status.Name(answer.status).lower().replace("_", " ")
    said = f": {answer.message}" if answer.message else ""
    print(f"{kind}, {answer.processed_count} {done}{said}", file=sys.stderr, flush=True)
    is_repeat = answer.status == ScaleResponse.ALREADY_PROCESSED
    return 0 if (answer.first_status if is_repeat else answer.status) == ScaleResponse.SUCCESS else 1


def scale_request(args: argparse.Namespace, count: int) -> Any:
    """The ScaleRequest that the flags make. Raises BadArgument."""
    from ottoscaler.rpc.v1.scaling_pb2 import ScaleRequest

    if not -(2**31) <= count < 2**31:
        raise BadArgument(f"the number of workers is {count}, expected a smaller one")
    metadata = _pairs("--meta", args.meta)
    if args.request_id:
        metadata["request_id"] = args.request_id
    if getattr(args, "wait", False):
        metadata["wait"] = "completed"
    return ScaleRequest(
        task_id=args.task,
        repository=args.repository,
        commit_sha=args.commit,
        worker_count=count,
        build_config=_pairs("--config", args.config),
        triggered_by=args.triggered_by,
        reason=args.reason,
        metadata=metadata,
    )


def _pairs(flag: str, items: list[str]) -> dict[str, str]:
    pairs = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise BadArgument(f"{flag} is {item!r}, expected NAME=VALUE")
        pairs[name] = value
    return pairs


def _status(args: argparse.Namespace, server: Server) -> int:
    from ottoscaler.cli.columns import Columns
    from ottoscaler.rpc.v1.scaling_pb2 import WorkerStatusRequest

    columns, token = Columns(HEADER), ""
    while True:
        request = WorkerStatusRequest(
            task_id=args.task, worker_pod_name=args.pod, status_filter=args.state, page_token=token
        )
        answer = server.ask(server.stub.GetWorkerStatus, request)
        workers = list(answer.workers)
        for line in map(_as_json, workers) if args.output else columns.lines(map(_as_row, workers)) if workers else ():
            print(line)
        token = answer.next_page_token
        if not token:
            break
    counts = [(answer.total_count, "workers"), *((getattr(answer, f"{state}_count"), state) for state in STATES)]
    older = "; older ones were not read back" if answer.is_truncated else ""
    print(", ".join(f"{count} {name}" for count, name in counts) + older, file=sys.stderr, flush=True)
    return 0


def _as_row(worker: Any) -> tuple[str, ...]:
    return (
        worker.pod_name,
        worker.status,
        worker.task_id,
        worker.started_at,
        worker.completed_at,
        worker.node_name,
        worker.error_message,
    )


def _as_json(worker: Any) -> str:
    from google.protobuf.json_format import MessageToDict

    return json.dumps(MessageToDict(worker, preserving_proto_field_name=True), ensure_ascii=False)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of seconds above 0")
    return seconds
