"""`python -m ottoscaler.cli.metrics_table`: write docs/metrics.md from the code."""

from pathlib import Path

from ottoscaler.gauges import looked_up_metrics
from ottoscaler.metrics import STAGES, Meaning, kept_metrics

PATH = Path(__file__).parents[2] / "docs" / "metrics.md"
INTRODUCTION = f"""# Metrics and probes

`ottoscaler serve` answers HTTP on `HTTP_HOST`:`HTTP_PORT` (0.0.0.0:8080; port 0: not at all).

| path | 200 | 503 |
|---|---|---|
| `/livez` | the process turns | its loop is blocked, a part of it has ended, or the poller hangs: a restart helps |
| `/readyz` | it does its work | not ready yet, draining, the lease in Redis has run out, or the API is not heard of |
| `/startupz` | it was ready once | Redis and the API are still being reached |
| `/metrics` | all of the below | |

Each probe says in one line per check what is wrong, and is answered from what is known at that instant: a Redis or an
API that hangs delays no answer. A Redis that hangs shows in `/readyz` within `LEASE_SECONDS`, an API that hangs within
45 s, one that refuses at once. `/livez` never fails because Redis or the API is away. During a drain `/readyz` answers
503 and `/livez` 200.

Labels come from closed sets, never from an event. A figure that is unknown is absent, never 0. What only Redis can
tell is asked by the scrape, for at most 1 s. Every replica tells of its own work, so sums over replicas are right,
except for `ottoscaler_pods`, `ottoscaler_stream_entries`, `ottoscaler_events_waiting` and
`ottoscaler_oldest_waiting_seconds`, which are the same everywhere: take their maximum.

`ottoscaler_stage_seconds` follows a scale_up through {" → ".join(STAGES)}: `stage` is the one that ends the gap. Those
of the event (read, started, closed) count once per event, the others once per attempt of a worker. What an attempt
never reached is not counted, and what happened while no replica looked is counted by nobody.

The usual `process_…` figures (memory, CPU, open files) are there, too. This page is made by
`python -m ottoscaler.cli.metrics_table`.

| metric | type | labels | meaning |
|---|---|---|---|
"""


def metrics_page() -> str:
    """The whole of docs/metrics.md."""
    return INTRODUCTION + "".join(map(_row, (*kept_metrics(), *looked_up_metrics())))


def _row(metric: Meaning) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |\n"


if __name__ == "__main__":
    PATH.write_text(metrics_page())
