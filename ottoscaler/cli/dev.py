"""`ottoscaler dev`: a whole Ottoscaler on this machine until Ctrl-C, with lines to copy into another shell."""

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ottoscaler.cli.call import SERVER

if TYPE_CHECKING:
    import trio

    from ottoscaler.cli.programs import Impatience

HANDLES_SIGNALS = True
OURS = {"DRAIN_SECONDS": "2", "LOG_FORMAT": "text"}
NOT_TAKEN = ("REDIS_", "KUBECONFIG", "NAMESPACE")  # of the environment: they mean some other place
EVENT = "type scale_up pod_count 3 task_id task-123"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add no argument: what the scaler shall do differently stands in the environment."""
    parser.epilog = "The environment's settings of workers, limits and times apply; see ottoscaler serve --help."


def run(args: argparse.Namespace) -> int:
    """Run until a signal; Ctrl-C and SIGTERM are how it is meant to end, so they are a success."""
    import trio

    from ottoscaler.cli.programs import Impatience
    from ottoscaler.cli.running import run_until_signal
    from ottoscaler.settings import FIELDS, load_settings

    chosen = {name: os.environ[name] for name in FIELDS if os.environ.get(name) and not name.startswith(NOT_TAKEN)}
    load_settings(chosen)  # wrong ones are named before anything starts

    impatience = Impatience("serve")

    async def dev(nursery: trio.Nursery) -> int:
        return await _dev(nursery, {**OURS, **chosen}, impatience)

    code = trio.run(run_until_signal, dev, impatience.insist)
    return 0 if code in (130, 143) else code


async def _dev(nursery: "trio.Nursery", settings: dict[str, str], impatience: "Impatience") -> int:
    from contextlib import AsyncExitStack

    from ottoscaler.cli.playground import find_free_port, open_handler, open_playground

    ours = {"HTTP_HOST": "127.0.0.1", "HTTP_PORT": str(find_free_port())}
    settings = {**ours, "GRPC_ENABLED": "true", "GRPC_PORT": str(find_free_port()), **settings}
    _show("starting Valkey, a local cluster, an otto-handler and the scaler ...")
    handlers = []
    async with AsyncExitStack() as opened:
        if "OTTO_HANDLER_HOST" not in settings:  # else the lines of workers go to that one
            opening = open_handler(nursery, show=_show, opened=impatience.note)
            handler, settings["OTTO_HANDLER_HOST"] = await opened.enter_async_context(opening)
            handlers.append(handler)
        playground = await opened.enter_async_context(open_playground(nursery, settings, impatience, show=_show))
        http, grpc = int(settings["HTTP_PORT"]), int(settings["GRPC_PORT"])
        _show(instructions(playground.redis_port, playground.kubeconfig, http_port=http, grpc_port=grpc))
        try:
            await playground.fail_when_ended(*handlers)
        finally:
            _show("ending: first the scaler drains, then the cluster and Valkey end; Ctrl-C again ends its drain now")
    return 0


def instructions(
    port: int,
    kubeconfig: Path,
    has_tool: Callable[[str], object] = shutil.which,
    *,
    http_port: int = 0,
    grpc_port: int = 0,
) -> str:
    """The lines to copy into another shell: one each for kubectl, redis-cli (or what stands in for a missing tool) and
    send, which need nothing before them, and one that lets every further command find this place.
    """
    ours = f"{Path(sys.executable).parent / 'ottoscaler'}"
    server = f" {SERVER}=127.0.0.1:{grpc_port}" if grpc_port else ""
    reach = f"KUBECONFIG={kubeconfig} REDIS_URL=redis://127.0.0.1:{port}/0"
    watch = f"KUBECONFIG={kubeconfig} kubectl get pods -w" if has_tool("kubectl") else f"{reach} {ours} workers -w"
    redis_cli = next(filter(has_tool, ("redis-cli", "valkey-cli")), None)
    add = f"XADD otto:scale:events '*' {EVENT}"
    by_bash = f"""bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; echo "{add.replace("'", "")}" >&3; head -2 <&3'"""
    return "\n".join(
        (
            "ready until Ctrl-C; in another shell:",
            "",
            f"  {watch}",
            f"  {redis_cli} -p {port} {add}" if redis_cli else f"  {by_bash}",
            f"  {reach} {ours} send scale_up --pods 3 --wait",
            *([f"  {ours} call scale-up --server 127.0.0.1:{grpc_port} --workers 3 --wait"] if grpc_port else []),
            *([f"  metrics and probes: http://127.0.0.1:{http_port}/metrics, /livez, /readyz"] if http_port else []),
            "",
            "for all other commands (ottoscaler workers, results, status, check, logs, call ...) first",
            "",
            f"  export PATH={Path(ours).parent}:$PATH {reach}{server}",
            "",
        )
    )


def _show(line: str) -> None:
    print(line, flush=True)
