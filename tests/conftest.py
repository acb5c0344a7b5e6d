"""What holds for the whole suite."""

import os

# Before anything imports gRPC: children that this process forks while it serves or calls would now and then abort
# (https://github.com/grpc/grpc/issues/43055). Programs of ours have it from `ottoscaler.rpc`.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
