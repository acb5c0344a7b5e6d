"""Imports redis-py without opentelemetry: where that is installed, redis-py would load it for metrics of its own, which
nobody asks for here and which cost every process 3 MB and 0.1 s.
"""

import sys

if "redis" not in sys.modules and "opentelemetry" not in sys.modules:
    sys.modules["opentelemetry"] = None  # type: ignore[assignment]  # Python's own word for "cannot be imported"
    try:
        import redis as redis
    finally:
        del sys.modules["opentelemetry"]
