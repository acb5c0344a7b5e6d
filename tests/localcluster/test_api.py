"""The API's rules beyond the recordings: patches, selectors, paging, deletion, access, faults by chance, protobuf."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottoscaler.localcluster.canonical import BadQuantity, canonical_quantity
from ottoscaler.localcluster.faults import Fault, Faults
from ottoscaler.localcluster.patch import JSON_PATCH, MERGE, STRATEGIC, apply_patch
from ottoscaler.localcluster.protobuf import decode_protobuf
from ottoscaler.localcluster.quantities import parse_quantity
from ottoscaler.localcluster.refusals import ApiError
from ottoscaler.localcluster.resources import PODS as POD_RESOURCE
from ottoscaler.localcluster.selectors import parse_selector
from ottoscaler.localcluster.store import copy_json

from .replay import Api, Json

PODS = "/api/v1/namespaces/default/pods"


def _nested(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return inner | st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)


_VALUES = _nested(_nested(st.none() | st.booleans() | st.integers() | st.text(max_size=3)))
_OBJECTS = st.dictionaries(st.text(max_size=2), _VALUES, max_size=4)


def _pod(name: str, **metadata: Any) -> Json:
    containers = [{"name": "worker", "image": "busybox"}]
    return {"metadata": {"name": name, **metadata}, "spec": {"containers": containers}}


def _set_phase(phase: str, pod: Json) -> None:
    pod["status"]["phase"] = phase


def _code_of(call: Callable[[], object]) -> int | None:
    """The code with which a call is refused, None where it is not."""
    try:
        call()
    except ApiError as error:
        return error.code
    return None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


@given(_OBJECTS, _OBJECTS)
def test_a_merge_patch_reaches_its_goal(before: Json, after: Json) -> None:
    """A merge patch that drops all that is there and sets all that is wanted gives exactly what is wanted."""
    goal = _without_nulls(after)
    kept = copy_json(before)
    emptied = apply_patch(POD_RESOURCE, MERGE, before, dict.fromkeys(before))
    assert apply_patch(POD_RESOURCE, MERGE, emptied, goal) == goal
    assert before == kept


def test_strategic_patches_know_their_lists() -> None:
    """Containers merge by name, finalizers unite, directives delete and replace; other lists are replaced."""
    pod = {
        "metadata": {"name": "a", "finalizers": ["x"]},
        "spec": {"containers": [{"name": "a", "image": "1", "args": ["p"]}, {"name": "b"}]},
    }
    patch = {
        "metadata": {"finalizers": ["y"], "$deleteFromPrimitiveList/finalizers": ["x"]},
        "spec": {
            "$setElementOrder/containers": [{"name": "a"}],
            "containers": [{"name": "a", "image": "2", "args": ["q"]}, {"$patch": "delete", "name": "b"}],
        },
    }
    patched = apply_patch(POD_RESOURCE, STRATEGIC, pod, patch)
    assert patched["spec"]["containers"] == [{"name": "a", "image": "2", "args": ["q"]}]
    assert patched["metadata"]["finalizers"] == ["y"]


@pytest.mark.parametrize(
    ("operations", "goal"),
    [
        ([{"op": "add", "path": "/m/l/-", "value": 3}], {"m": {"l": [1, 2, 3]}}),
        ([{"op": "remove", "path": "/m/l/0"}], {"m": {"l": [2]}}),
        ([{"op": "replace", "path": "/m/l/0", "value": 9}], {"m": {"l": [9, 2]}}),
        ([{"op": "move", "from": "/m/l", "path": "/k"}], {"m": {}, "k": [1, 2]}),
        ([{"op": "copy", "from": "/m/l/1", "path": "/a~1b"}], {"m": {"l": [1, 2]}, "a/b": 2}),
        ([{"op": "test", "path": "/m/l/1", "value": 2}], {"m": {"l": [1, 2]}}),
    ],
)
def test_json_patch_operations(operations: list[Json], goal: Json) -> None:
    """Each operation of RFC 6902 does what it says."""
    assert apply_patch(POD_RESOURCE, JSON_PATCH, {"m": {"l": [1, 2]}}, operations) == goal


def test_a_json_patch_whose_test_fails_changes_nothing() -> None:
    """A failed test refuses the whole patch with 422 and leaves the object as it was."""
    api = Api()
    api.ask("POST", PODS, _pod("a", labels={"n": "1"}))
    operations = [
        {"op": "replace", "path": "/metadata/labels/n", "value": "2"},
        {"op": "test", "path": "/metadata/labels/n", "value": "1"},
    ]
    assert api.ask("PATCH", f"{PODS}/a", operations, content_type=JSON_PATCH).status == 422
    assert api.ask_json("GET", f"{PODS}/a")["metadata"]["labels"] == {"n": "1"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "abc"),
        ("app", "ab"),
        ("!app", "c"),
        ("app=x", "a"),
        ("app==x,tier!=2", "a"),
        ("app!=x", "bc"),
        ("app in (x, y),tier notin (2)", "a"),
        ("tier=", ""),
    ],
)
def test_label_selectors(text: str, names: str) -> None:
    """Every form of requirement selects as documented; `!=` and `notin` also select what lacks the label."""
    labels = {"a": {"app": "x", "tier": "1"}, "b": {"app": "y", "tier": "2"}, "c": {}}
    selector = parse_selector("pods", text, "")
    assert "".join(n for n, found in labels.items() if selector.matches({"metadata": {"labels": found}})) == names


@given(st.text(alphabet="ab=!(), <>in", max_size=12))
def test_any_label_selector_is_read_or_refused(text: str) -> None:
    """Whatever stands in a label selector gives a selector or a 400, never another error."""
    code = _code_of(lambda: parse_selector("pods", text, "").matches({"metadata": {}}))
    assert code in (None, 400)


@given(st.integers(1, 20), st.integers(1, 7))
def test_pages_hold_everything_once(count: int, limit: int) -> None:
    """Pages of any size hold each pod once, as of the first page, whatever changes between them."""
    api = Api()
    for number in range(count):
        api.ask("POST", PODS, _pod(f"p{number:02}"))
    names, token = [], ""
    while True:
        page = api.ask_json("GET", f"{PODS}?limit={limit}&continue={token}")
        names += [pod["metadata"]["name"] for pod in page["items"]]
        token = page["metadata"].get("continue", "")
        if not token:
            break
        api.ask("DELETE", f"{PODS}/{names[0]}")
        api.ask("POST", PODS, _pod(f"q{len(names)}"))
    assert names == [f"p{number:02}" for number in range(count)]


def test_an_old_token_goes_on_inconsistently() -> None:
    """A token that is too old answers 410 with another that lists the rest as it is now."""
    api = Api()
    for name in "abc":
        api.ask("POST", PODS, _pod(name))
    token = api.ask_json("GET", f"{PODS}?limit=1")["metadata"]["continue"]
    api.store.compact(api.store.revision + 1)
    gone = api.ask("GET", f"{PODS}?limit=1&continue={token}")
    assert gone.status == 410
    rest = api.ask_json("GET", f"{PODS}?continue={json.loads(gone.body)['metadata']['continue']}")
    assert [pod["metadata"]["name"] for pod in rest["items"]] == ["b", "c"]


def test_grace_can_only_be_shortened() -> None:
    """A second delete shortens a running grace and never lengthens it; the generation counts one deletion."""
    api = Api()
    api.ask("POST", PODS, _pod("a"))
    api.store.update("pods", "default", "a", lambda pod: pod["spec"].update(nodeName="n"))
    graces = [
        api.ask_json("DELETE", f"{PODS}/a?gracePeriodSeconds={asked}")["metadata"]["deletionGracePeriodSeconds"]
        for asked in (20, 25, 5, 10)
    ]
    assert graces == [20, 20, 5, 5]
    assert api.ask_json("GET", f"{PODS}/a")["metadata"]["generation"] == 2
    assert api.ask("DELETE", f"{PODS}/a?gracePeriodSeconds=0").status == 200
    assert api.ask("GET", f"{PODS}/a").status == 404


def test_a_stale_version_deletes_nothing() -> None:
    """A delete on a version that is not the last one answers 409 and deletes nothing."""
    api = Api()
    old = api.ask_json("POST", PODS, _pod("a"))["metadata"]["resourceVersion"]
    api.ask("PATCH", f"{PODS}/a", {"metadata": {"labels": {"n": "1"}}}, content_type=MERGE)
    answer = api.ask("DELETE", f"{PODS}/a", {"preconditions": {"resourceVersion": old}})
    assert (answer.status, json.loads(answer.body)["reason"]) == (409, "Conflict")
    assert api.ask("GET", f"{PODS}/a").status == 200


def test_a_collection_is_deleted_as_selected_and_as_far_as_asked() -> None:
    """Only what both selectors choose is deleted, no more than the limit a call; the answer says what was there."""
    api = Api()
    for name, phase in (("a", "Succeeded"), ("b", "Running"), ("c", "Failed"), ("d", "Failed")):
        api.ask("POST", PODS, _pod(name, labels={"app": "x"}))
        api.store.update("pods", "default", name, partial(_set_phase, phase))
    api.ask("POST", PODS, _pod("other"))
    ended = "fieldSelector=status.phase!%3DPending,status.phase!%3DRunning&labelSelector=app%3Dx"
    first = api.ask_json("DELETE", f"{PODS}?{ended}&limit=2")
    assert [pod["metadata"]["name"] for pod in first["items"]] == ["a", "c"]
    assert [pod["status"]["phase"] for pod in first["items"]] == ["Succeeded", "Failed"]
    assert [pod["metadata"]["name"] for pod in api.ask_json("DELETE", f"{PODS}?{ended}")["items"]] == ["d"]
    assert [pod["metadata"]["name"] for pod in api.ask_json("GET", PODS)["items"]] == ["b", "other"]


def test_status_changes_by_its_own_path_only() -> None:
    """An update of the pod leaves its status, an update of the status leaves the rest."""
    api = Api()
    pod = api.ask_json("POST", PODS, _pod("a"))
    pod["status"]["phase"] = "Failed"
    assert api.ask_json("PUT", f"{PODS}/a", pod)["status"]["phase"] == "Pending"
    pod["metadata"].pop("resourceVersion")
    pod["spec"]["nodeName"] = "n"
    changed = api.ask_json("PUT", f"{PODS}/a/status", pod)
    assert changed["status"]["phase"] == "Failed"
    assert "nodeName" not in changed["spec"]


def test_a_role_opens_what_it_names_and_nothing_else() -> None:
    """Verbs, resources, subresources, names and the namespace of a Role are kept to."""
    api = Api()
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"], "resourceNames": ["mine"]},
    ]
    api.access.add_user("t", "somebody", {"metadata": {"name": "r"}, "rules": rules}, "default")
    leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    asked = [
        ("GET", PODS),
        ("GET", f"{PODS}/a"),
        ("GET", f"{PODS}/a/log"),
        ("GET", f"{PODS}?watch=1"),
        ("GET", "/api/v1/namespaces/kube-system/pods"),
        ("GET", "/api/v1/pods"),
        ("GET", f"{leases}/mine"),
        ("GET", f"{leases}/other"),
    ]
    statuses = [api.ask(method, path, token="t").status for method, path in asked]
    assert statuses == [200, 403, 403, 403, 403, 403, 404, 403]


def test_quota_counts_what_is_asked_for() -> None:
    """A quota of memory refuses the pod that would pass it, naming asked, used and limit; ended pods are free."""
    api = Api()
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"limits.memory": "128Mi"}}}
    api.ask("POST", "/api/v1/namespaces/default/resourcequotas", quota)
    pods = [_pod(name) for name in "ab"]
    for pod in pods:
        pod["spec"]["containers"][0]["resources"] = {"limits": {"memory": "96Mi"}}
    assert api.ask("POST", PODS, pods[0]).status == 201
    refused = api.ask_json("POST", PODS, pods[1])
    assert refused["message"] == (
        'pods "b" is forbidden: exceeded quota: q, requested: limits.memory=96Mi, '
        "used: limits.memory=96Mi, limited: limits.memory=128Mi"
    )
    api.store.update("pods", "default", "a", lambda pod: pod["status"].update(phase="Succeeded"))
    assert api.ask("POST", PODS, pods[1]).status == 201


@given(st.from_regex(r"\A[0-9]{1,6}(\.[0-9]{1,3})?(|m|k|M|Ki|Mi|Gi)\Z"))
def test_canonical_quantities_mean_the_same(text: str) -> None:
    """Writing a quantity the API's way changes no value above its finest step, and is its own canonical form."""
    written = canonical_quantity(text)
    assert abs(parse_quantity(written) - parse_quantity(text)) <= parse_quantity("1n")
    assert canonical_quantity(written) == written


@given(st.text(max_size=6))
def test_any_text_is_a_quantity_or_refused(text: str) -> None:
    """No text makes anything but a quantity or BadQuantity."""
    try:
        canonical_quantity(text)
    except BadQuantity:
        return
    parse_quantity(text)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_review_or_refused(body: bytes) -> None:
    """No bytes behind the envelope's mark make anything but an object or a 400."""
    assert _code_of(lambda: decode_protobuf(b"k8s\x00" + body, "SelfSubjectAccessReview")) in (None, 400)


def test_faults_by_chance_can_be_repeated() -> None:
    """The same seed makes the same requests fail; a fault that used itself up is gone."""

    def run(seed: int) -> list[bool]:
        faults = Faults(seed)
        faults.add(Fault(kind="reject", verb="create", probability=0.5, times=5))
        return [bool(faults.take("create", "/pods")) for _ in range(40)]

    assert run(1) == run(1) != run(2)
    assert sum(run(1)) == 5
    assert Faults().take("create", "/pods") == []


def test_faults_keep_to_their_verb_and_path() -> None:
    """A fault happens to the requests that it names, and to no others."""
    faults = Faults()
    faults.add(Fault(kind="reject", verb="delete", path="pods/a$"))
    assert not faults.take("create", "/pods/a")
    assert not faults.take("delete", "/pods/b")
    assert faults.take("delete", "/pods/a")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/nosuch", 404),
        ("GET", "/apis/nosuch/v1/things", 404),
        ("POST", f"{PODS}/a", 405),
        ("DELETE", "/api/v1/namespaces", 405),
        ("GET", f"{PODS}/a/exec", 404),
        ("GET", "/api/v1/namespaces/default/nodes", 404),
        ("POST", "/api/v1/pods", 405),
        ("PUT", "/healthz", 200),
    ],
)
def test_paths_that_lead_nowhere(method: str, path: str, status: int) -> None:
    """What is not served answers 404, a verb that a resource lacks 405."""
    assert Api().ask(method, path, {}).status == status


_WHOLE_POD: Json = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {"name": "a", "labels": {"app": "x"}, "annotations": {"n": "1"}, "finalizers": ["f"]},
    "spec": {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": 5,
        "terminationGracePeriodSeconds": 5,
        "serviceAccountName": "default",
        "securityContext": {"runAsNonRoot": True},
        "tolerations": [{"key": "k", "operator": "Exists"}],
        "volumes": [{"name": "v", "secret": {"secretName": "s"}}],
        "initContainers": [{"name": "i", "image": "busybox"}],
        "containers": [
            {
                "name": "worker",
                "image": "busybox",
                "command": ["sh"],
                "env": [{"name": "X", "value": "1"}, {"name": "Y", "valueFrom": {"fieldRef": {"fieldPath": "p"}}}],
                "ports": [{"containerPort": 1}],
                "resources": {"limits": {"cpu": "1"}, "requests": {"memory": "1Mi"}},
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "livenessProbe": {"exec": {"command": ["x"]}},
                "securityContext": {"capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "x"}},
            }
        ],
    },
    "status": {"phase": "Pending", "conditions": []},
}


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(deeper for key, item in inner for deeper in _paths(item, (*path, key)))]


@given(st.sampled_from(_paths(_WHOLE_POD)[1:]), _VALUES, st.sampled_from(["restricted", "privileged"]))
def test_any_value_anywhere_is_taken_or_refused(path: tuple[Any, ...], value: Any, level: str) -> None:
    """Whatever stands in any field of a pod, the answer is an acceptance or a refusal that says why, never a crash."""
    api = Api()
    security = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}}
    assert api.ask("PATCH", "/api/v1/namespaces/default", security, content_type=MERGE).status == 200
    pod = copy_json(_WHOLE_POD)
    parent = pod
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    for method, where, kind in (
        ("POST", PODS, "application/json"),
        ("PUT", f"{PODS}/a", "application/json"),
        ("PUT", f"{PODS}/a/status", "application/json"),
        ("PATCH", f"{PODS}/a", MERGE),
        ("PATCH", f"{PODS}/a", STRATEGIC),
    ):
        answer = api.ask(method, where, pod, content_type=kind)
        body = json.loads(answer.body)
        assert answer.status < 300 or (400 <= answer.status < 500 and body["message"]), (method, body)
        assert api.ask("GET", PODS, accept="application/json;as=Table;v=v1;g=meta.k8s.io").status == 200
