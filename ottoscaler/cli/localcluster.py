"""`ottoscaler localcluster`: a small Kubernetes API on 127.0.0.1 whose pods are local processes, until a signal."""

import argparse
import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf, nan
from pathlib import Path

from ottoscaler.cli.folders import open_folder
from ottoscaler.errors import GiveUp

HANDLES_SIGNALS = True


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the port, the kubeconfig's path, the folder of the pods and the node's haste."""
    parser.add_argument("--port", type=_port, default=0, metavar="N", help="port on 127.0.0.1 (default: a free one)")
    parser.add_argument(
        "--kubeconfig", type=Path, metavar="FILE", help="where to write it (default: kubeconfig in DIR)"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of pods and logs (default: a temporary one)")
    parser.add_argument(
        "--start-delay",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="what the node takes before it starts a pod's containers (default: %(default)s; a real one: some 0.7)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT, which is how it is meant to end: then all pods' processes end too, exit 0."""
    import trio

    from ottoscaler.cli.running import run_until_signal

    try:
        import ottoscaler.localcluster.cluster  # noqa: F401  only whether all it needs is there
    except ImportError as error:
        raise GiveUp(f"{error.name} is not installed: pip install 'ottoscaler[local]'") from error
    code = 1
    try:
        with _folder(args.data) as data:
            kubeconfig = args.kubeconfig or data / "kubeconfig"

            async def serve(_: trio.Nursery) -> int:
                return await _serve(args, kubeconfig.absolute(), data)

            code = trio.run(run_until_signal, serve)
    except* OSError as group:
        print(f"ottoscaler localcluster: {_sentence(_first(group), args.port)}", file=sys.stderr)
    return 0 if code in (130, 143) else code


async def _serve(args: argparse.Namespace, kubeconfig: Path, data: Path) -> int:
    """Serve for ever; print one line when ready."""
    import trio

    from ottoscaler.localcluster.cluster import open_cluster
    from ottoscaler.localcluster.node import NodeSettings

    settings = NodeSettings(start_delay=args.start_delay)
    async with open_cluster(data_dir=data, port=args.port, settings=settings) as cluster:
        cluster.write_kubeconfig(kubeconfig)
        print(f"ready at {cluster.url}; export KUBECONFIG={kubeconfig}", flush=True)
        await trio.sleep(inf)
    return 0


@contextmanager
def _folder(chosen: Path | None) -> Iterator[Path]:
    if chosen is None:
        with open_folder("localcluster-") as made:
            yield made
    else:
        chosen.mkdir(parents=True, exist_ok=True)
        yield chosen.absolute()


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a port from 0 (a free one) to 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = nan
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of seconds from 0 to 3600")
    return seconds


def _first(group: BaseExceptionGroup[OSError]) -> OSError:
    """The first single error of a group."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _sentence(error: OSError, port: int) -> str:
    """What could not be had: the port, or a file."""
    if error.errno == errno.EADDRINUSE:
        return f"--port is {port}, expected one that is free on 127.0.0.1"
    file = error.filename2 or error.filename
    return f"{file}: {error.strerror}" if file else str(error)
