"""A program that has nothing to do with what is measured, and keeps a core busy to a certain degree.

`python -m benchmarks.busy SHARE`: this part of one core, from 0 to 1, until SIGTERM.
"""

from __future__ import annotations

import sys
import time

ROUND_SECONDS = 0.01


def burn(share: float) -> None:
    """Compute for this share of each `ROUND_SECONDS`, by the CPU that it takes, and sleep for the rest."""
    print("ready", flush=True)
    while True:
        begun = time.process_time()
        while time.process_time() - begun < share * ROUND_SECONDS:
            pass
        time.sleep((1 - share) * ROUND_SECONDS)


if __name__ == "__main__":
    burn(float(sys.argv[1]))
