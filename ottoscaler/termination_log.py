"""The file in which Kubernetes looks for a sentence on why a container ended; `kubectl describe pod` shows it."""

from __future__ import annotations

import os
from contextlib import suppress

VARIABLE = "TERMINATION_LOG"
DEFAULT = "/dev/termination-log"
MAX_BYTES = 4096
"""What the kubelet reads of it: https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/."""


def write_termination_log(words: str) -> None:
    """Write there why the start failed, where that file exists and may be written; elsewhere nothing happens.

    Its path is read from the environment and is no setting, because wrong settings are one of the reasons.
    """
    text = words.encode()[:MAX_BYTES].decode(errors="ignore")
    with suppress(OSError):
        file = os.open(os.environ.get(VARIABLE) or DEFAULT, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK)
        with os.fdopen(file, "wb") as log:
            log.write(text.encode())
