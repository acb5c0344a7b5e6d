"""The root: builds everything from the settings and runs the rings; the only place that knows all.

What ends the service is one of three: a signal (drain, exit 0), a part that cannot be kept running (hand-over, exit
1), or a Redis that has forgotten everything (the running work ends, its pods stay, and the rings are built anew for
the new era).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, cast

import trio

from ottoscaler import signals
from ottoscaler.backoff import Backoff
from ottoscaler.causes import CauseClass, check_retry_policy
from ottoscaler.drain import Drain
from ottoscaler.errors import FixYourCall, SettingsError
from ottoscaler.events import Event, Limits
from ottoscaler.fair import FairLimiter
from ottoscaler.fleet import Fleet
from ottoscaler.garbage import searching_less
from ottoscaler.health import Health
from ottoscaler.kube.access import Access, load_access
from ottoscaler.kube.client import Kube, open_kube
from ottoscaler.kube.manifest import WorkerDefaults, WorkerIdentity, build_pod, instance_label, pod_name
from ottoscaler.kube.templates import Templates, load_templates
from ottoscaler.log import log
from ottoscaler.metrics import observe_request
from ottoscaler.outages import Outages
from ottoscaler.policy import Policy
from ottoscaler.policy_file import PolicyFile
from ottoscaler.retries import RetryPolicy, policy_of_template
from ottoscaler.settings import Settings
from ottoscaler.spine.ledger import Ledger
from ottoscaler.spine.rings import Doors, Rings
from ottoscaler.spine.site import Patience, Site
from ottoscaler.spine.standings import Standings
from ottoscaler.spine.traces import NO_TRACES, Traces
from ottoscaler.startup import Startup, StartupFailed, StartupStopped
from ottoscaler.stream.base import Era, Stream
from ottoscaler.stream.opening import new_session_name, open_stream
from ottoscaler.stream.session import Session
from ottoscaler.supervisor import Part
from ottoscaler.termination_log import write_termination_log
from ottoscaler.throttle import Throttle
from ottoscaler.tracing.opening import Place, TracesOf, open_traces
from ottoscaler.verdicts import Graces
from ottoscaler.web.pages import open_http_door

DEFAULT_PLACE = ("otto:scale:events", "ottoscaler")
"""Stream and group whose pods are named by the event's id alone."""
STARTUP_BACKOFF = Backoff(0.1, 2.0)
STEADY_BACKOFF = Backoff(0.1, 10.0)
TRACES_SECONDS = 0.6
"""After the drain's deadline the last spans may be sent for so long: less than the process then has."""
IN_FLIGHT = 8
"""Requests to the API at a time. Against an API that takes 10 ms more, 4 created 200 pods/s, 8 create 360, at the same
CPU a pod; httpx' pool collapses with many (2,000/s at 4 concurrent ones, 1,400/s at 10, 90/s at 100).
"""


def run(settings: Settings) -> int:
    """Serve until a signal, and leave the process with 0 (drained) or 1 (could not go on); returns the exit code where
    nothing was begun: 1 could not start, 2 the settings do not fit.
    """
    code = 1
    drain = Drain(settings.drain_seconds)
    try:
        trio.run(_serve, settings, drain)
        drain.leave()
    except* FixYourCall as errors:
        code = _complain(errors, 2)
    except* StartupFailed as errors:
        code = _complain(errors, 1)
    return code


def _complain(errors: ExceptionGroup[Any], code: int) -> int:
    """Say in one line what a person has to mend."""
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    log.error("cannot serve", reason=str(first))
    write_termination_log(str(first))
    for line in str(first).splitlines():
        print(f"ottoscaler: {line}", file=sys.stderr)
    return code


async def _serve(settings: Settings, drain: Drain) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as receiver:
        if (number := signals.first_signal()) is not None:
            drain.request(signal.Signals(number).name)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain.listen, receiver)
            await serve(settings, drain)
            nursery.cancel_scope.cancel(reason="the service has ended")
    log.info("stopped", reason=drain.reason)


async def serve(settings: Settings, drain: Drain) -> None:
    """Serve one era after the other until the drain. Raises `FixYourCall` or `StartupFailed`."""
    access, templates, policy = _load_files(settings)
    health = Health(drain)
    traces = open_traces(os.environ, lambda: drain.deadline + TRACES_SECONDS)
    async with open_http_door(settings.http_host, settings.http_port, health), traces as traces_of:
        while not drain.requested.is_set():
            startup = Startup(settings.startup_timeout_seconds, drain, STARTUP_BACKOFF)
            try:
                await _serve_era(settings, drain, health, startup, access, templates, policy, traces_of)
            except* StartupStopped as stopped:
                log.info("stopped at the start", reason=str(stopped.exceptions[0]))


def _load_files(settings: Settings) -> tuple[Access, Templates, PolicyFile]:
    """What files say of the API, of the workers and of what may be asked. Raises `SettingsError` with all problems."""
    problems = check_retry_policy(settings.retry_policy or {})
    try:
        access = load_access(settings.kubeconfig and str(settings.kubeconfig), None, os.environ)
    except SettingsError as error:
        problems += error.problems
    try:
        templates = load_templates(settings.worker_template, settings.own_apps)
        _policies(settings, templates)
    except SettingsError as error:
        problems += error.problems
    try:
        policy = PolicyFile(settings.policy_file)
    except SettingsError as error:
        problems += error.problems
    if settings.grpc_enabled:
        from ottoscaler.rpc.server import wrong_files

        problems += wrong_files(settings)
    if problems:
        raise SettingsError(problems)
    return access, templates, policy


async def _serve_era(
    settings: Settings,
    drain: Drain,
    health: Health,
    startup: Startup,
    access: Access,
    templates: Templates,
    policy: PolicyFile,
    traces_of: TracesOf,
) -> None:
    await startup.reach(f"a token for {access.server} ({access.origin})", access.credentials.token)
    name = new_session_name(settings.redis_consumer)
    async with open_stream(settings, name) as stream:
        opening = partial(stream.open_group, settings.redis_group_start, settings.namespace)
        era = await startup.reach(f"Redis at {stream.address}", opening)
        if era.namespace != settings.namespace:
            raise SettingsError(
                [
                    f"NAMESPACE is {settings.namespace!r}, expected {era.namespace!r}: the group "
                    f"{settings.redis_consumer_group} of {settings.redis_stream} was begun there"
                ]
            )
        if settings.redis_address.scheme == "memory":
            log.warning("there is no Redis", reason=(await stream.report()).promise)
        rings: list[Rings] = []
        outages = Outages(time.time)
        session = Session(
            stream,
            settings.lease_seconds,
            era.id,
            believed=lambda: rings[0].roster.ids() if rings else frozenset(),
            on_lost=lambda lost: rings[0].lose(lost),
            on_restart=lambda: rings[0].remind() if rings else None,
            outages=lambda: outages.look(rings[0].vitals) if rings else "",
        )
        async with open_kube(access, may_write=session.check, in_flight=IN_FLIGHT, on_request=observe_request) as kube:
            place = Place(settings.redis_stream, settings.redis_consumer_group, settings.namespace, era.id)
            site = _build_site(settings, stream, session, kube, era, templates, policy, traces_of(place))
            judge = Policy(policy, templates.images | {settings.otto_agent_image}, site.build_pod).judge
            limits = Limits(settings.max_pods_per_event, settings.max_metadata_bytes, templates.names, judge)
            async with _open_logs(settings, access, session, site) as (logs, site):
                doors = _doors(settings, drain, site, limits, logs)
                rings.append(Rings(settings, drain, site, session, name, era, limits, doors))
                with health.follow(rings[0].vitals), searching_less():
                    await rings[0].run(startup)


@asynccontextmanager
async def _open_logs(
    settings: Settings, access: Access, session: Session, site: Site
) -> AsyncIterator[tuple[dict[str, Part], Site]]:
    """Whoever forwards the logs of workers, as a part, and the site that knows it; imported where it is switched on."""
    if not (settings.otto_handler_host or settings.log_sink != "none"):
        yield {}, site
        return
    from ottoscaler.logs.opening import open_log_keeper

    async with open_log_keeper(settings, access, session.check, site) as keeper:
        yield {"logs": keeper.run}, replace(site, logs=keeper)


def _doors(settings: Settings, drain: Drain, site: Site, limits: Limits, logs: dict[str, Part]) -> Doors:
    """The gRPC door and what answers its calls. It needs 6 MB, so it is imported where it is switched on."""
    if not settings.grpc_enabled:
        return Doors(parts=logs)
    from ottoscaler.calls.door import Calls
    from ottoscaler.rpc.server import serve_rpc

    calls = Calls(site, limits)
    return Doors(partial(serve_rpc, calls, settings, drain), {"calls": calls.run, **logs})


def _build_site(
    settings: Settings,
    stream: Stream,
    session: Session,
    kube: Kube,
    era: Era,
    templates: Templates,
    policy: PolicyFile,
    traces: Traces = NO_TRACES,
) -> Site:
    """The surroundings that all workers of this era share."""
    instance = instance_label(settings.instance_name, settings.redis_stream, settings.redis_consumer_group)
    is_default = (settings.redis_stream, settings.redis_consumer_group) == DEFAULT_PLACE
    suffix = "" if is_default else instance[:6]
    defaults = WorkerDefaults(
        image=settings.otto_agent_image,
        command=settings.worker_command,
        args=settings.worker_args,
        cpu_limit=settings.worker_cpu_limit,
        memory_limit=settings.worker_memory_limit,
        service_account=settings.worker_service_account,
    )

    def build(event: Event, index: int, attempt: int) -> dict[str, Any]:
        identity = WorkerIdentity(
            event_id=event.id,
            index=index,
            count=event.pod_count,
            attempt=attempt,
            instance=instance,
            era=era.id,
            task_id=event.task_id,
            metadata=event.metadata,
            name_suffix=suffix,
            context=traces.of_worker(event, index, attempt),
        )
        longest = policy.rules.ceilings.timeout_seconds
        of_now = replace(defaults, timeout_seconds=longest) if longest else defaults
        return build_pod(identity, of_now, templates.choose(event.template), event.spec)

    ledger = Ledger(stream, STEADY_BACKOFF)
    return Site(
        kube=kube,
        fleet=Fleet(),
        ledger=ledger,
        standings=Standings(ledger),
        namespace=settings.namespace,
        instance=instance,
        era=era.id,
        build_pod=build,
        name_pod=lambda event_id, index, attempt: pod_name(event_id, index, attempt, suffix),
        wait_writable=session.wait_valid,
        slots=FairLimiter(settings.max_workers),
        writes=Throttle(IN_FLIGHT),
        patience=Patience(
            cleanup_delay=settings.cleanup_delay_seconds,
            create_fence=settings.create_fence_seconds,
            create_timeout=settings.create_timeout_seconds,
            graces=Graces(settings.image_pull_grace_seconds, pending=settings.pending_timeout_seconds),
        ),
        backoff=STEADY_BACKOFF,
        retries=_build_policy(settings),
        retries_by_template=_policies(settings, templates),
        traces=traces,
    )


def _build_policy(settings: Settings) -> RetryPolicy:
    return RetryPolicy(
        settings.worker_max_attempts,
        settings.platform_max_attempts,
        settings.platform_retry_started,
        cast("Mapping[str, CauseClass]", settings.retry_policy or {}),
    )


def _policies(settings: Settings, templates: Templates) -> dict[str, RetryPolicy]:
    """Every template's policy by its name, and under the empty name that of events which name none."""
    named = {**templates.by_name, **({"": templates.fallback} if templates.fallback else {})}
    return {name: policy_of_template(name or "default", each, _build_policy(settings)) for name, each in named.items()}
