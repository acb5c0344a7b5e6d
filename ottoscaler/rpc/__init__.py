"""The gRPC door: how otto-handler asks for workers, watches them and runs pipelines.

    v1/          the .proto files and the code made from them (`make proto`)
    door         what the door asks of the service: plain records, no word of gRPC
    server       serving: the port, the limits, the drain
    servicer     the rpcs: what each call passes on its way in and out
    messages     the wire's messages as the door's records; answers: errors as codes and details
    bridge       gRPC's threads and Trio's tasks: the one place where they meet
    lanes        pools of threads by sort of call, and the pace of each client; patience: limits of time
    access       who may call: tokens, tls, watched_files
    health       grpc.health.v1

And the calls the other way, to otto-handler, with a client of our own:

    handler_link its two calls; http2: a connection; framing: frames and messages in bytes

gRPC itself is imported by `server` and below it only, which a service without the door never imports.
"""

import os

# Read by gRPC when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its core writes to stderr in a form of its own
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # it aborts children: grpc/grpc #43055
