"""A small otto-handler for development and tests: the other side of the wire, which takes lines and states of workers.

    server       the gRPC server that takes calls in threads (`open_otto_handler`)
    services     what each rpc does
    behaviour    how it answers (retry, drop, throttle, stall, die), from flags and from a file that may change
    store        where what it took goes: JSON lines in a folder, lines for people, a list

It imports nothing of Ottoscaler but the messages in `ottoscaler.rpc.v1`.
"""

import ottoscaler.rpc  # noqa: F401  first: it keeps gRPC's core from writing to stderr
