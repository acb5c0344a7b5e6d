"""For programs inside a worker pod: their own lines, sent to otto-handler. Runs on asyncio and on Trio alike.

    async with open_log_stream() as logs:               # who and where from the environment
        logs.send_nowait("building", level="info")      # never waits; where the buffer is full the oldest line goes
        await logs.send("done")                         # waits for room instead
        await logs.flush()                              # until everything was answered

What the handler is not there to take is held back, and sent when it is; what does not fit becomes a line that says how
many are missing. Imports nothing of Ottoscaler but the messages in `ottoscaler.rpc.v1`.

    stream       `open_log_stream`: registers, sends, comes back after a cut
    buffer       what waits, what is under way, what an answer means; pure
    limits       what the handler says it takes (LoggingConfig)
    exchange     one connection: gRPC's threads on one side, tasks on the other
    place        where the handler is, and who we are, from the environment
"""

import ottoscaler.rpc  # noqa: F401  first: it keeps gRPC's core from writing to stderr
from ottoscaler.client.buffer import Statistics
from ottoscaler.client.place import Handler, Worker, WrongSetting, handler_from, worker_from
from ottoscaler.client.stream import LogStream, open_log_stream

__all__ = [
    "Handler",
    "LogStream",
    "Statistics",
    "Worker",
    "WrongSetting",
    "handler_from",
    "open_log_stream",
    "worker_from",
]
