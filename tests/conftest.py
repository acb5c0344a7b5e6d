"""What holds for the whole suite."""

import os

# Before anything imports gRPC: children that this process forks while it serves or calls would now and then abort
# (https://github.com/grpc/grpc/issues/43055). Programs of ours have it from `ottoscaler.rpc`.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from hypothesis import settings

# The same examples every time, and no limits of time that a busy machine would break; `--hypothesis-profile=explore`
# looks for others.
settings.register_profile("suite", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("suite")
