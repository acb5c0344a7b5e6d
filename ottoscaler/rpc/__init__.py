"""The gRPC door: how otto-handler asks for workers, watches them and runs pipelines.

    v1/          the .proto files and the code made from them (`make proto`)
    door         what the door asks of the service: plain records, no word of gRPC
    server       serving: the limits, the drain
    listening    the port, TLS, the preface of HTTP/2; tls, watched_files: certificates
    connection   one HTTP/2 connection and its tasks; streams: its state; floods: what a client may ask beside calls
    call         one call on it; heads: headers of calls; codes: how they end
    servicer     the rpcs: what each call passes on its way in and out
    messages     the wire's messages as the door's records; answers: errors as codes and details
    access       who may call: tokens; lanes: places by sort of call, and the pace of each client
    peers        who is at the other end, and the log of refusals
    health       grpc.health.v1; reflection: grpc.reflection.v1

And the calls the other way, to otto-handler, with a client of our own:

    handler_link its two calls; http2: a connection

Both ways share framing: frames and messages in bytes. Nothing here imports grpcio, which commands and clients use; they
import this package first.
"""

import os

# Read by gRPC when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its core writes to stderr in a form of its own
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # it aborts children: grpc/grpc #43055
