"""Ottoscaler: an event becomes running Kubernetes worker pods, each followed to its end, none lost, none repeated.

The map of the house; each room imports its own line or those above it, and a test checks that.

    words       events spec stages trace_context timestamps outcomes repeats refusals causes verdicts pods
                pod_warnings errors settings parsing
    tools       log metrics signals backoff fair throttle fleet startup drain supervisor garbage
                termination_log stepwise                                    time and ends
    boundaries  stream/   Redis Streams: the promise (base), Redis (redis, lua/), the twin in memory, the session
                kube/     the Kubernetes REST API: access, requests, client, the one watch, pod manifests, templates
    policy      policy policy_file patterns                          what a caller may ask
    spine       spine/      poller → handler → scaling → creation, worker, diagnosis: an event's way to its result;
                            scaledown: the way back; taker, ledger, roster, site: what they share; rings: their shape
                pipelines/  stages that wait for each other
    doors       rpc/      the gRPC door: connections, calls, access; asks a Door, which knows nothing of gRPC
                calls/    what a call does: an event on the stream, and the waiting for what becomes of it
                logs/     the lines of workers: followed, marked, handed on until each is acknowledged
                tracing/  OpenTelemetry: a trace of each event, if switched on
                web/      the HTTP door: metrics (gauges) and probes (health); outages: what replicas tell
    root        service                                                             builds everything, knows all
    far ends    client/         for worker images, on anyio: lines to otto-handler
                otto_handler/   a small otto-handler for development and tests
    apart       localcluster/   a Kubernetes API of its own, pods as local processes; imports nothing of ours
    doors       cli/ __main__   commands, one file each

Where to begin: `docs/design.md` for the promises, `spine/rings.py` for the shape of the process, then the spine.
"""

__version__ = "0.1.0"
