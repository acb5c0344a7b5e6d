"""What holds for the whole suite."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

# Before anything imports gRPC: children that this process forks while it serves or calls would now and then abort
# (https://github.com/grpc/grpc/issues/43055). Programs of ours have it from `ottoscaler.rpc`.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from hypothesis import HealthCheck, settings

# A shell that runs the suite in the background, and nohup, have it ignore these; what it starts would inherit that.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)

# The same examples every time, and no limits of time that a busy machine would break; `--hypothesis-profile=explore`
# looks for others.
PATIENT: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("suite", derandomize=True, **PATIENT)
settings.register_profile("explore", **PATIENT)
settings.load_profile("suite")

TOGETHER = ("process", "deploy", "node")
"""Folders whose tests share something costly. The first of them waits more than it works, so it begins first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what waits."""
    items.sort(key=lambda item: _room(item.nodeid) != TOGETHER[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep a file, or one of these folders, in one process where several run the suite."""
    from xdist.scheduler import LoadScopeScheduling

    class ByRoom(LoadScopeScheduling):  # type: ignore[misc]  # xdist tells no types
        def _split_scope(self, nodeid: str) -> str:
            return _room(nodeid)

    return ByRoom(config, log)


def _room(nodeid: str) -> str:
    path = Path(nodeid.partition("::")[0])
    return path.parts[1] if path.parts[1] in TOGETHER else str(path)
