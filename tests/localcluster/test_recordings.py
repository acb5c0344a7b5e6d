"""Our answers against those of a real API server, exchange by exchange; what is not done is listed with its reason."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ottoscaler.localcluster.admission import Denial

from .replay import Api, FakeNode, Json, Replay, find_pod, load_recordings, normalise, read_lines

RECORDED = load_recordings()

# The exchanges whose answers are not compared here, and why. Everything else must be equal.
_IDENTITY = "names its own version"
_FEWER = "only what is served is listed: fewer groups and resources"
_LOGS = "needs a container that ran: compared with real processes in test_cluster"
_SHELF = "shows pods that ended between recordings"
NOT_COMPARED = {
    ("01-discovery", 0): _IDENTITY,
    ("01-discovery", 1): "names the address it is reached at",
    ("01-discovery", 2): _FEWER,
    ("01-discovery", 3): _FEWER,
    ("01-discovery", 4): "has no storageVersionHash: there is no storage",
    ("01-discovery", 5): _FEWER,
    ("03-read", 16): "begins with a pod that was there before the recording",
    ("04-life-of-a-pod-watched", 7): "the watch beside it: the kubelet's half, compared in test_statuses",
    **{("05-logs", index): _LOGS for index in (1, 2, 3, 4, 5, 6, 8, 10)},
    ("06-delete", 7): "two pods of which one is still pending",
    ("13-watch-expired", 1): "the version is asked before any pod was created: ours began earlier",
    ("15-platform-and-refusals", 11): "the watch over node loss: the kubelet's half",
    ("15-platform-and-refusals", 7): "its environment value was shortened in the recording",
    **{("15-platform-and-refusals", index): "a node that falls silent: the kubelet's half" for index in (16, 17, 18)},
}

# After these the recorded node had not yet done what was asked of it.
NOT_SETTLED = {("06-delete", 0), ("06-delete", 1), ("06-delete", 2)} | {
    ("04-life-of-a-pod-watched", index) for index in (4, 5)
}


def _prepare(api: Api, file: str, index: int) -> None:
    """Bring our cluster to where the recorded one was before this exchange."""
    match file, index:
        case "02-create", 0:
            body = {"metadata": {"name": "otto-more"}}
            assert api.ask("POST", "/api/v1/namespaces", body).status == 201
            nobody, otto = "system:serviceaccount:otto:nobody", "system:serviceaccount:otto:otto"
            rules = [
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "get", "list", "watch", "delete"]},
            ]
            role = {"metadata": {"name": "otto"}, "rules": rules}
            api.access.add_user("nobody", nobody)
            api.access.add_user("otto", otto, role, "otto")
            high = {"metadata": {"name": "high"}, "value": 1000}
            assert api.ask("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", high).status == 201
        case "11-admission", 1:  # all that ran before has ended
            _end_all(api, [pod["metadata"]["name"] for pod in api.store.list("pods", "otto")])
        case "13-watch-expired", 0:
            api.store.compact(api.store.revision)
        case "15-platform-and-refusals", 0:
            api.store.compact(api.store.revision)
            denied = Denial("case", "denied", "pods of case denied are not allowed here", "no-denied")
            away = Denial("case", "webhook-away", name="away.example.com", is_webhook_away=True)
            api.admission.denials.extend((denied, away))
        case "15-platform-and-refusals", 19:  # the token of this request says version 844
            api.store.revision = 1000
            api.store.compact(900)


def _end_all(api: Api, names: Iterable[str]) -> None:
    for name in names:
        if find_pod(api.store, name):
            api.store.update("pods", "otto", name, _end)


def _end(pod: Json) -> None:
    pod["status"]["phase"] = "Succeeded"


def _token(note: str) -> str | None:
    if note == "bad token":
        return "wrong"
    if note == "no token":
        return None
    if note.startswith("no rights"):
        return "nobody"
    return "otto" if note.startswith(("rights:", "may I")) else "admin"


async def test_every_recorded_exchange(autojump_clock: object) -> None:
    """Each recorded request gets the recorded status and body, but for what differs in every run and what is listed."""
    replay = Replay(Api())
    node = FakeNode(replay.api.store)
    differences: list[str] = []
    for file, exchanges in RECORDED.items():
        if file.startswith("08"):
            continue  # the same creates as in 14, and the kubelet's half
        for index, exchange in enumerate(exchanges):
            _prepare(replay.api, file, index)
            where = f"{file}[{index}] {exchange['note']}"
            difference = await _compare(replay, exchange, (file, index) in NOT_COMPARED)
            if difference:
                differences.append(f"{where}: {difference}")
            if (file, index) not in NOT_SETTLED:
                node.settle()
            if file.startswith("04") and index == 2:
                _end_all(replay.api, ("life-ok", "life-fail"))
    assert not differences, "\n".join(differences)


async def _compare(replay: Replay, exchange: Json, is_listed: bool) -> str:
    recorded = exchange["response"]
    response = replay.request(exchange["request"], token=_token(exchange["note"]))
    if "lines" in recorded:
        theirs: Any = [line["line"] for line in recorded["lines"] if "line" in line]
        ours: Any = await read_lines(response, 30)
    else:
        theirs, ours = recorded["body"], _body(response)
    replay.learn(theirs, ours)
    if is_listed:
        return ""
    if response.status != recorded["status"]:
        return f"status {response.status}, recorded {recorded['status']}: {str(ours)[:300]}"
    is_new = response.status == 201
    for name, value in recorded["headers"].items():
        found = dict(response.headers).get(name, response.content_type if name == "content-type" else None)
        if found != value:
            return f"header {name}: {found!r}, recorded {value!r}"
    return _difference(
        normalise(theirs, replay.learned, with_status=is_new), normalise(ours, replay.learned, with_status=is_new)
    )


def _body(response: Any) -> Any:
    if response.content_type == "application/json":
        return json.loads(response.body)
    return response.body.decode()


def _difference(theirs: Any, ours: Any, path: str = "") -> str:
    """The first place where two values differ, or ""."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted(theirs.keys() | ours.keys()):
            if key not in theirs or key not in ours:
                side = "ours" if key in ours else "recorded"
                return f"{path}.{key}: only in {side} ({str((ours if key in ours else theirs)[key])[:200]})"
            if found := _difference(theirs[key], ours[key], f"{path}.{key}"):
                return found
        return ""
    if isinstance(theirs, list) and isinstance(ours, list):
        if len(theirs) != len(ours):
            return f"{path}: {len(ours)} items, recorded {len(theirs)}"
        pairs = enumerate(zip(theirs, ours, strict=True))
        return next((found for i, (a, b) in pairs if (found := _difference(a, b, f"{path}[{i}]"))), "")
    return "" if theirs == ours else f"{path}: {ours!r}, recorded {theirs!r}"


def test_the_list_of_what_is_not_compared_is_exact() -> None:
    """Every exchange that is listed as not compared exists, so the list cannot hide a typing mistake."""
    known = {(file, index) for file, exchanges in RECORDED.items() for index in range(len(exchanges))}
    assert set(NOT_COMPARED) <= known
    assert set(NOT_SETTLED) <= known
