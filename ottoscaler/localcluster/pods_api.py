"""What only pods have: logs, eviction, binding."""

from __future__ import annotations

import re
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import trio

from .deletion import DeleteOptions, check_preconditions
from .exchange import Request, Response, Send, decode_body, json_response
from .faults import Faults
from .harm import evict
from .kubelet import Kubelet
from .listing import parse_count
from .logs import LogNotAvailable, LogOptions
from .objects_api import Target
from .refusals import ApiError, bad_request, not_found, success
from .resources import PODS
from .store import NotFound, Published, Store

_MOMENT = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")


@dataclass(frozen=True, slots=True)
class PodsApi:
    """The subresources of pods, over the store and the kubelet."""

    store: Store
    kubelet: Kubelet
    faults: Faults = field(default_factory=Faults)

    def get_log(self, target: Target, request: Request) -> Response:
        """GET log: 204 before the pod has a node, 400 for what cannot be read, else text."""
        pod = self._find(target)
        container = _choose_container(pod, request)
        options = _read_log_options(request)
        if not pod["spec"].get("nodeName"):
            return Response(204, content_type="text/plain")
        state = _container_state(pod, container)
        if options.previous and "terminated" not in (state.get("lastState") or {}):
            what = f'previous terminated container "{container}" in pod "{target.name}" not found'
            raise bad_request(what)
        if (
            "waiting" in state.get("state", {})
            and not options.previous
            and "terminated" not in state.get("lastState", {})
        ):
            return _unready_log(target, container, state["state"]["waiting"])
        if not state:
            return Response(204, content_type="text/plain")

        async def stream(send: Send) -> None:
            with self.faults.open_watch(request.path) as watch:  # what befalls watches befalls logs, too
                await copy(partial(watch.send, send))
            if watch.is_silent:  # nor does it say that it is over: behind bytes that never came no end can come
                await trio.sleep_forever()

        async def copy(send: Send) -> None:
            try:
                pieces = self.kubelet.read_log(target.namespace or "", target.name, container, options)
                async with aclosing(pieces) as chunks:
                    async for chunk in chunks:
                        await send(chunk)
            except LogNotAvailable as error:  # the answer has begun: the reason is all that can still be said
                await send(str(error).encode())

        return Response(content_type="text/plain", stream=stream)

    def evict(self, target: Target, request: Request) -> Response:
        """POST eviction: the pod says DisruptionTarget, then it is deleted with its grace."""
        options = decode_body(request, PODS).get("deleteOptions") or {}
        preconditions = options.get("preconditions") or {}
        wanted = DeleteOptions(uid=preconditions.get("uid"), resource_version=preconditions.get("resourceVersion"))
        check_preconditions(PODS, self._find(target), wanted)
        evict(self.store, self.kubelet, target.namespace or "", target.name, options.get("gracePeriodSeconds"))
        return json_response(success() | {"code": 201}, 201)

    def bind(self, target: Target, request: Request) -> Response:
        """POST binding: the pod gets its node."""
        node = (decode_body(request, PODS).get("target") or {}).get("name")
        pod = self._find(target)
        if not node:
            raise bad_request("binding.target.name: Required value")
        if pod["spec"].get("nodeName"):
            what = (
                f'Operation cannot be fulfilled on pods/binding "{target.name}": pod {target.name} is already assigned'
            )
            raise ApiError(
                409, "Conflict", f'{what} to node "{pod["spec"]["nodeName"]}"', details={"name": target.name}
            )
        self.store.update("pods", target.namespace or "", target.name, lambda p: p["spec"].update(nodeName=node))
        return json_response(success() | {"code": 201}, 201)

    def _find(self, target: Target) -> Published:
        try:
            return self.store.get("pods", target.namespace or "", target.name)
        except NotFound:
            raise not_found(PODS, target.name) from None


def _choose_container(pod: dict[str, Any], request: Request) -> str:
    spec, name = pod["spec"], pod["metadata"]["name"]
    names = [c["name"] for c in spec["containers"]]
    asked = request.query.get("container", "")
    everyone = names + [c["name"] for c in spec.get("initContainers", [])]
    if asked:
        if asked not in everyone:
            raise bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    if len(names) == 1:
        return str(names[0])
    what = f"a container name must be specified for pod {name}, choose one of: [{' '.join(names)}]"
    inits = [c["name"] for c in spec.get("initContainers", [])]
    raise bad_request(what + (f" or one of the init containers: [{' '.join(inits)}]" if inits else ""))


def _container_state(pod: dict[str, Any], container: str) -> dict[str, Any]:
    status = pod.get("status", {})
    for state in [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]:
        if state["name"] == container:
            return dict(state)
    return {}


def _unready_log(target: Target, container: str, waiting: dict[str, str]) -> Response:
    """What a container answers that has not started: nothing yet while it is being made, 400 where it cannot be."""
    reason = waiting.get("reason", "")
    if reason in ("", "ContainerCreating", "PodInitializing"):
        what = "ContainerCreating" if reason != "PodInitializing" else reason
        raise bad_request(f'container "{container}" in pod "{target.name}" is waiting to start: {what}')
    detail = "trying and failing to pull image" if "Image" in reason or "Pull" in reason else reason
    raise bad_request(f'container "{container}" in pod "{target.name}" is waiting to start: {detail}')


def _read_log_options(request: Request) -> LogOptions:
    since_time = request.query.get("sinceTime", "")
    if since_time and not _MOMENT.match(since_time):
        layout = "2006-01-02T15:04:05Z07:00"
        raise bad_request(f'parsing time "{since_time}" as "{layout}": cannot parse "{since_time}" as "2006"')
    return LogOptions(
        follow=request.has_flag("follow"),
        timestamps=request.has_flag("timestamps"),
        tail_lines=_optional(request, "tailLines"),
        since_seconds=_optional(request, "sinceSeconds"),
        since_time=datetime.fromisoformat(since_time) if since_time else None,
        limit_bytes=_optional(request, "limitBytes"),
        previous=request.has_flag("previous"),
    )


def _optional(request: Request, name: str) -> int | None:
    return parse_count(name, request.query[name]) if name in request.query else None
