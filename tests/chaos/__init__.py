"""Chaos: whole scalers, harmed from a seed, and judged by what their workers did."""

import os

# Read by gRPC when it is imported, which may be before anything of ours: else it aborts some of the programs that a run
# starts, between fork and exec.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
