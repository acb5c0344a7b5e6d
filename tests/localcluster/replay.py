"""Replays recorded exchanges of a real API server against ours, in one process, without a network or a kubelet.

What differs from run to run (uids, versions, times, random names) is learned from each pair of answers and put into
later requests; `normalise` takes it out before answers are compared. A `FakeNode` stands for scheduler and kubelet: it
binds pods, shows them as being created, and removes those that are deleted.
"""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

import trio

from ottoscaler.localcluster.access import AccessControl
from ottoscaler.localcluster.admission import Admission
from ottoscaler.localcluster.control import Control
from ottoscaler.localcluster.exchange import Request, Response
from ottoscaler.localcluster.faults import Faults
from ottoscaler.localcluster.namespaces import create_namespace
from ottoscaler.localcluster.objects_api import ObjectsApi
from ottoscaler.localcluster.pods_api import PodsApi
from ottoscaler.localcluster.routes import Routes
from ottoscaler.localcluster.store import NotFound, Store

RECORDINGS = Path(__file__).parent.parent / "recordings" / "api-exchanges.json.gz"
TOKEN = "admin"

Json = dict[str, Any]

_DROPPED = ("uid", "creationTimestamp", "deletionTimestamp", "resourceVersion", "continue", "managedFields")
_VERSION = re.compile(r"(?<=current: )\d+|(?<=version: 1 \()\d+")
_RANDOM = re.compile(r"kube-api-access-[a-z0-9]{5}")


def load_recordings() -> dict[str, list[Json]]:
    """All exchanges by file name, in the order in which they were recorded."""
    recorded: dict[str, list[Json]] = json.loads(gzip.decompress(RECORDINGS.read_bytes()))
    return recorded


class Api:
    """The API half alone: store, admission, access, routes; its clock stands: no answer tells how long we took."""

    def __init__(self) -> None:
        began = datetime.now(UTC)
        self.store = Store(now=lambda: began)
        self.admission = Admission(self.store)
        self.access = AccessControl(TOKEN)
        self.faults = Faults()
        for name in ("default", "kube-system"):
            create_namespace(self.store, name, "ca")
        objects = ObjectsApi(self.store, self.admission, self.faults, "ca")
        control = Control(self.store, self.faults, self.admission, self.access, {})
        self.routes = Routes(self.access, objects, PodsApi(self.store, None), control)  # type: ignore[arg-type]  # no kubelet

    def ask(
        self, method: str, path: str, body: object = None, *, token: str | None = TOKEN, **headers: str
    ) -> Response:
        """One request, answered at once; `body` is sent as JSON unless it is text."""
        text = body if isinstance(body, str) else "" if body is None else json.dumps(body)
        bare, _, query = path.partition("?")
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["authorization"] = f"Bearer {token}"
        request = Request(method, bare, dict(parse_qsl(query, keep_blank_values=True)), sent, text.encode())
        return self.routes.answer(request)

    def ask_json(self, method: str, path: str, body: object = None, **more: Any) -> Any:
        """The body of the answer, decoded."""
        return json.loads(self.ask(method, path, body, **more).body)


async def read_lines(response: Response, seconds: float) -> list[Json]:
    """The lines of a streamed answer, until it ends or the time is over."""
    if response.stream is None:
        return [json.loads(response.body)]
    text = b""

    async def keep(piece: bytes) -> None:
        nonlocal text
        text += piece

    with trio.move_on_after(seconds):
        await response.stream(keep)
    return [json.loads(line) for line in text.splitlines()]


class FakeNode:
    """A node in one step: what is new is bound and shown as being created, what is deleted is gone."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def settle(self) -> None:
        """Bring every pod to rest."""
        for pod in self._store.list("pods"):
            key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
            if "deletionTimestamp" in pod["metadata"]:
                if not pod["metadata"].get("finalizers"):
                    self._store.remove("pods", *key)
            elif not pod["spec"].get("nodeName"):
                self._store.update("pods", *key, self._start)

    @staticmethod
    def _start(pod: Json) -> None:
        pod["spec"]["nodeName"] = "vm"
        waiting = {"waiting": {"reason": "ContainerCreating"}}
        pod["status"]["containerStatuses"] = [
            {"name": c["name"], "ready": False, "restartCount": 0, "state": waiting} for c in pod["spec"]["containers"]
        ]


@dataclass
class Replay:
    """An API under replay and what it was learned that recorded values are called here."""

    api: Api
    learned: dict[str, str] = field(default_factory=dict)

    def request(self, recorded: Json, *, token: str | None = TOKEN) -> Response:
        """Send a recorded request with this run's values."""
        body = recorded.get("body")
        if body is not None and not isinstance(body, str):
            body = self._translate(json.dumps(body))
        headers = {name.replace("-", "_"): value for name, value in (recorded.get("headers") or {}).items()}
        return self.api.ask(recorded["method"], self._translate(recorded["path"]), body, token=token, **headers)

    def learn(self, theirs: Any, ours: Any, name: str = "") -> None:
        """Note what changes from run to run, from two answers to the same request."""
        if isinstance(theirs, dict) and isinstance(ours, dict):
            for key in theirs.keys() & ours.keys() - ({"name"} if "generateName" not in ours else set()):
                self.learn(theirs[key], ours[key], key)
        elif isinstance(theirs, list) and isinstance(ours, list):
            for one, other in zip(theirs, ours, strict=False):
                self.learn(one, other)
        elif name in ("uid", "resourceVersion", "continue", "name") and theirs != ours:
            self.learned[theirs] = ours

    def _translate(self, text: str) -> str:
        """Put our values in the place of recorded ones: whole words in quotes or in a query."""
        for theirs, ours in self.learned.items():
            text = text.replace(f'"{theirs}"', f'"{ours}"')
            text = re.sub(rf"(=|/){re.escape(quote(theirs))}(?=&|$|/)", rf"\g<1>{quote(ours)}", text)
        return text


def normalise(value: Any, learned: dict[str, str], *, with_status: bool = True) -> Any:
    """An answer without what is different in every run, and without a pod's status unless that is asked for."""
    if isinstance(value, list):
        return [normalise(item, learned, with_status=with_status) for item in value]
    if isinstance(value, str):
        for theirs, ours in learned.items():
            if len(theirs) > 20 or "-" in theirs:
                value = value.replace(theirs, ours)
        value = _VERSION.sub("N", _RANDOM.sub("kube-api-access-*", value))
        return value.partition("\n@@")[0]  # a diff of internal types follows
    if not isinstance(value, dict):
        return value
    kept = {key: item for key, item in value.items() if key not in _DROPPED or (key == "continue" and item)}
    if not with_status and "spec" in kept and "containers" in (kept["spec"] or {}):
        kept.pop("status", None)
    if "sources" in kept:  # one distribution's own certificate
        kept["sources"] = [s for s in kept["sources"] if "openshift" not in s.get("configMap", {}).get("name", "")]
    return {key: normalise(item, learned, with_status=with_status) for key, item in kept.items()}


def find_pod(store: Store, name: str) -> Json | None:
    """A pod of namespace otto, or None."""
    try:
        return store.get("pods", "otto", name)
    except NotFound:
        return None
