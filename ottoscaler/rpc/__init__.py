"""The gRPC door: how otto-handler asks for workers, watches them and runs pipelines.

    v1/          the .proto files and the code made from them (`make proto`)
    door         what the door asks of the service: plain records, no word of gRPC
    server       serving: the limits, the drain; tls: certificates
    servicer     the rpcs: what each call passes on its way in and out
    messages     the wire's messages as the door's records; answers: errors as codes and details
    access       who may call: tokens; lanes: places by sort of call, and the pace of each client
    health       grpc.health.v1; reflection: grpc.reflection.v1
    handler_link the calls the other way, to otto-handler
    http2/       what carries both: gRPC over HTTP/2 on Trio, which knows no rpc

Nothing here imports grpcio, which commands and clients use; they import this package first.
"""

import os

# Read by gRPC when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its core writes to stderr in a form of its own
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # it aborts children: grpc/grpc #43055
