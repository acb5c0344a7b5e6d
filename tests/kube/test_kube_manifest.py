"""Worker pods: names, labels, environment, and who decides what when a template has a say."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottoscaler.kube.manifest import (
    WorkerDefaults,
    WorkerIdentity,
    build_pod,
    instance_label,
    is_label_value,
    pod_name,
)
from ottoscaler.spec import Spec
from ottoscaler.trace_context import TraceContext

EVENT = "1756659802903-0"


def identity(**changes: Any) -> WorkerIdentity:
    """The second of three workers, on its first attempt."""
    values: dict[str, Any] = {"event_id": EVENT, "index": 2, "count": 3, "attempt": 1, "instance": "i1", "era": "e1"}
    return WorkerIdentity(**(values | {"task_id": "task-123"} | changes))


def built(
    template: dict[str, Any] | None = None,
    *,
    worker: WorkerIdentity | None = None,
    spec: Spec | None = None,
    **defaults: Any,
) -> dict[str, Any]:
    """A pod."""
    return build_pod(worker or identity(), WorkerDefaults(**defaults), template, spec)


def container(pod: dict[str, Any], name: str = "worker") -> dict[str, Any]:
    """One container of a pod."""
    (found,) = [each for each in pod["spec"]["containers"] if each["name"] == name]
    return found  # type: ignore[no-any-return]  # a plain dict


def variables(pod: dict[str, Any], name: str = "worker") -> dict[str, str]:
    """The environment of a container."""
    return {each["name"]: each["value"] for each in container(pod, name)["env"]}


def template(worker: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A template with one container."""
    return {"spec": {"containers": [{"name": "worker", **(worker or {})}], **spec}}


def test_a_pod_by_the_defaults_alone() -> None:
    """Without a template everything comes from the settings; the whole pod is pinned here."""
    assert built() == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "otto-agent-2-1756659802903-0",
            "labels": {
                "managed-by": "ottoscaler",
                "app.kubernetes.io/managed-by": "ottoscaler",
                "app.kubernetes.io/name": "otto-agent",
                "ottoscaler/instance": "i1",
                "ottoscaler/era": "e1",
                "ottoscaler/event-id": EVENT,
                "ottoscaler/index": "2",
                "ottoscaler/attempt": "1",
                "ottoscaler/task-id": "task-123",
            },
            "annotations": {
                "karpenter.sh/do-not-disrupt": "true",
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
                "ottoscaler/task-id": "task-123",
            },
        },
        "spec": {
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65534,
                "runAsGroup": 65534,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "worker",
                    "command": ["sh", "-c"],
                    "args": ["echo 'Starting...'; sleep 30; echo 'Done!'"],
                    "image": "busybox:latest",
                    "resources": {
                        "limits": {"cpu": "500m", "memory": "128Mi"},
                        "requests": {"cpu": "500m", "memory": "128Mi"},
                    },
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    "env": [
                        {"name": "OTTO_EVENT_ID", "value": EVENT},
                        {"name": "OTTO_TASK_ID", "value": "task-123"},
                        {"name": "OTTO_WORKER_INDEX", "value": "2"},
                        {"name": "OTTO_WORKER_COUNT", "value": "3"},
                        {"name": "OTTO_ATTEMPT", "value": "1"},
                        {"name": "OTTO_METADATA", "value": "{}"},
                    ],
                }
            ],
            "restartPolicy": "Never",
        },
    }


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((EVENT, 1), f"otto-agent-1-{EVENT}"),
        ((EVENT, 7, 3), f"otto-agent-7-{EVENT}-r3"),
        ((EVENT, 7, 1, "a1b2c3"), f"otto-agent-7-{EVENT}-a1b2c3"),
        ((EVENT, 7, 2, "a1b2c3"), f"otto-agent-7-{EVENT}-a1b2c3-r2"),
    ],
)
def test_names_are_made_of_index_event_and_attempt(arguments: tuple[Any, ...], name: str) -> None:
    """The first attempt has no suffix; other streams and groups have their hash."""
    assert pod_name(*arguments) == name


REDIS_ID = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)).map(lambda id_: f"{id_[0]}-{id_[1]}")
ARGUMENTS = st.tuples(
    REDIS_ID | st.text(max_size=80), st.integers(1, 10**6), st.integers(1, 10**6), st.sampled_from(["", "a1b2c3"])
)


@given(ARGUMENTS, ARGUMENTS)
def test_every_name_is_a_dns_label_and_its_own(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    """Whatever the event id, a name is at most 63 of a-z, 0-9 and -; equal arguments alone give equal names."""
    name = pod_name(*one)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name)
    if not {"-r", "-a1b2c3"} & {end for end in ("-r", "-a1b2c3") if end in one[0] or end in other[0]}:
        assert (pod_name(*other) == name) == (one == other)


def test_instances_are_told_apart_by_name_stream_and_group() -> None:
    """The label changes with each of the three, and is a label value."""
    labels = {instance_label(*three) for three in [("a", "b", "c"), ("ab", "", "c"), ("a", "b", "d"), ("a", "c", "b")]}
    assert len(labels) == 4
    assert all(is_label_value(label) and len(label) == 16 for label in labels)


@pytest.mark.parametrize("task_id", ["has space", "x" * 64, "-a", "a/b", "ä"])
def test_a_task_id_that_is_no_label_value_is_an_annotation_only(task_id: str) -> None:
    """The whole task id is always in the annotation; the label is there only where Kubernetes accepts it."""
    metadata = built(worker=identity(task_id=task_id))["metadata"]
    assert metadata["annotations"]["ottoscaler/task-id"] == task_id
    assert "ottoscaler/task-id" not in metadata["labels"]


def test_metadata_reaches_the_worker_whole_and_by_name() -> None:
    """OTTO_METADATA is JSON of all; each field is a variable too; dollars are doubled, for the kubelet halves them."""
    pod = built(worker=identity(metadata=(("batch-size", "5"), ("Über", "$(HOME) $x"))))
    environment = variables(pod)
    assert environment["OTTO_META_BATCH_SIZE"] == "5"
    assert environment["OTTO_META__BER"] == "$$(HOME) $$x"
    assert json.loads(environment["OTTO_METADATA"].replace("$$", "$")) == {"batch-size": "5", "Über": "$(HOME) $x"}


DEMO = (["sh", "-c"], ["echo 'Starting...'; sleep 30; echo 'Done!'"])
OWN = (None, None)


@pytest.mark.parametrize(
    ("worker", "defaults", "expected"),
    [
        (None, {}, DEMO),
        (None, {"image": "mine:1"}, OWN),
        (None, {"command": ["a"]}, (["a"], None)),
        (None, {"args": ["b"]}, (None, ["b"])),
        (None, {"command": []}, OWN),
        (None, {"command": ["a"], "args": ["b"]}, (["a"], ["b"])),
        ({}, {}, OWN),
        ({"command": ["t"]}, {"command": ["a"], "args": ["b"]}, (["t"], None)),
        ({"args": ["t"]}, {"command": ["a"], "args": ["b"]}, (None, ["t"])),
        ({"image": "mine:1"}, {"command": ["a"]}, (["a"], None)),
        ({"image": "mine:1"}, {}, OWN),
    ],
)
def test_command_and_arguments_come_from_one_place(
    worker: dict[str, Any] | None, defaults: dict[str, Any], expected: tuple[Any, Any]
) -> None:
    """Template, else settings, else the demonstration (all defaults), else the image: whoever gives one gives both."""
    ours = container(built(None if worker is None else template(worker), **defaults))
    assert (ours.get("command"), ours.get("args")) == expected


@pytest.mark.parametrize(
    ("asked", "worker", "expected"),
    [
        ({}, None, ("busybox:latest", *DEMO)),
        ({"image": "theirs:1"}, None, ("theirs:1", *OWN)),
        ({"image": "theirs:1"}, {"image": "mine:1", "command": ["t"]}, ("theirs:1", ["t"], None)),
        ({"command": ("a",)}, None, ("busybox:latest", ["a"], None)),
        ({"args": ("b",)}, {"command": ["t"], "args": ["u"]}, ("busybox:latest", None, ["b"])),
        ({"command": ("a",), "args": ("b",)}, {"args": ["u"]}, ("busybox:latest", ["a"], ["b"])),
        ({"command": ()}, {"command": ["t"], "args": ["u"]}, ("busybox:latest", *OWN)),
        ({"command": ()}, None, ("busybox:latest", *OWN)),
    ],
)
def test_what_an_event_asks_wins_over_template_and_settings(
    asked: dict[str, Any], worker: dict[str, Any] | None, expected: tuple[Any, ...]
) -> None:
    """Image, command and arguments; a command or arguments given replace both, an empty one means the image's own."""
    ours = container(built(None if worker is None else template(worker), spec=Spec(**asked)))
    assert (ours["image"], ours.get("command"), ours.get("args")) == expected


@pytest.mark.parametrize(
    ("asked", "of_template", "ceiling", "expected"),
    [(0, None, None, None), (5, None, 9, 5), (5, 7, 9, 5), (0, 7, 9, 7), (0, None, 9, 9)],
)
def test_the_time_of_a_pod_is_the_events_the_templates_or_the_ceiling(
    asked: int, of_template: int | None, ceiling: int | None, expected: int | None
) -> None:
    """activeDeadlineSeconds is what the event asks, else what the template says, else the ceiling, else not there."""
    given = template(activeDeadlineSeconds=of_template)
    pod = built(given, spec=Spec(timeout_seconds=asked), timeout_seconds=ceiling)
    assert pod["spec"].get("activeDeadlineSeconds") == expected


def test_other_containers_are_not_asked_about() -> None:
    """What an event asks for changes the worker's container only."""
    given = template({"image": "mine:1"})
    given["spec"]["containers"].append({"name": "beside", "image": "side:1", "command": ["s"]})
    pod = built(given, spec=Spec(image="theirs:1", command=("a",)))
    assert container(pod, "beside") == {"name": "beside", "image": "side:1", "command": ["s"]}


def test_what_the_template_says_wins_over_the_settings() -> None:
    """Image, resources, scheduling, security, service account and annotations of the template stay as they are."""
    given = template(
        {"image": "mine:1", "resources": {"limits": {"cpu": "2"}}, "securityContext": {"capabilities": {"add": ["X"]}}},
        nodeSelector={"a": "b"},
        serviceAccountName="theirs",
        automountServiceAccountToken=True,
        securityContext={"runAsUser": 1000, "fsGroup": 7},
        terminationGracePeriodSeconds=5,
    )
    given["metadata"] = {"annotations": {"karpenter.sh/do-not-disrupt": "false", "x": "y"}, "labels": {"team": "blue"}}
    pod = built(given, service_account="ours", image="other")
    ours, spec = container(pod), pod["spec"]
    assert ours["image"] == "mine:1"
    assert ours["resources"] == {"limits": {"cpu": "2"}}
    assert ours["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"add": ["X"]}}
    assert (spec["nodeSelector"], spec["serviceAccountName"]) == ({"a": "b"}, "theirs")
    assert (spec["automountServiceAccountToken"], spec["terminationGracePeriodSeconds"]) == (True, 5)
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["fsGroup"]) == (1000, 7)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert pod["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "false"
    assert pod["metadata"]["annotations"]["x"] == "y"
    assert pod["metadata"]["labels"]["team"] == "blue"


def test_identity_is_always_ours() -> None:
    """Name, identity labels, OTTO_* and restartPolicy cannot be changed by a template; OTTO_HANDLER_* is for it."""
    given = template(
        {
            "env": [
                {"name": "OTTO_EVENT_ID", "value": "x"},
                {"name": "OTTO_META_X", "value": "x"},
                {"name": "OTTO_HANDLER_HOST", "value": "otto-handler:8080"},
                {"name": "A", "value": "a"},
            ]
        },
        restartPolicy="Always",
    )
    given["metadata"] = {
        "name": "theirs",
        "labels": {"ottoscaler/era": "x", "managed-by": "me", "ottoscaler/task-id": "x"},
        "annotations": {"ottoscaler/task-id": "x"},
    }
    pod = built(given, worker=identity(task_id=""))
    assert pod["metadata"]["name"] == f"otto-agent-2-{EVENT}"
    assert pod["metadata"]["labels"]["ottoscaler/era"] == "e1"
    assert pod["metadata"]["labels"]["managed-by"] == "ottoscaler"
    assert "ottoscaler/task-id" not in pod["metadata"]["labels"]
    assert "ottoscaler/task-id" not in pod["metadata"]["annotations"]
    assert variables(pod)["OTTO_EVENT_ID"] == EVENT
    assert "OTTO_META_X" not in variables(pod)
    assert variables(pod)["OTTO_HANDLER_HOST"] == "otto-handler:8080"
    assert variables(pod)["A"] == "a"
    assert pod["spec"]["restartPolicy"] == "Never"


def test_a_worker_is_told_its_trace() -> None:
    """TRACEPARENT and TRACESTATE are those of the trace that there is, else what the template says."""
    given = template({"env": [{"name": "TRACEPARENT", "value": "theirs"}, {"name": "A", "value": "a"}]})
    context = TraceContext("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "vendor=$x")
    traced = container(built(given, worker=identity(context=context)))["env"]
    assert [each["value"] for each in traced if each["name"] == "TRACEPARENT"] == [context.traceparent]
    assert {"name": "TRACESTATE", "value": "vendor=$$x"} in traced
    assert variables(built(given))["TRACEPARENT"] == "theirs"
    assert "TRACEPARENT" not in variables(built())


@pytest.mark.parametrize(("names", "ours"), [(["a", "worker"], "worker"), (["a", "b"], "a")])
def test_our_container_is_the_one_named_worker_else_the_first(names: list[str], ours: str) -> None:
    """Only our container gets the environment, image and resources; the others stay as they are."""
    given = {"spec": {"containers": [{"name": name} for name in names]}}
    containers = built(given)["spec"]["containers"]
    assert [each["name"] for each in containers if "env" in each] == [ours]
    assert [each for each in containers if each["name"] != ours] == [{"name": n} for n in names if n != ours]


@pytest.mark.parametrize(
    "given", [template(securityContext={"runAsUser": 0}), template({"securityContext": {"runAsUser": 0}})]
)
def test_a_template_that_asks_for_root_gets_it(given: dict[str, Any]) -> None:
    """Security of the template wins: our runAsNonRoot would only make the kubelet refuse the pod."""
    assert "runAsNonRoot" not in built(given)["spec"]["securityContext"]


def test_a_template_is_never_changed() -> None:
    """A template serves many workers, so building a pod leaves it as it was, and equal calls give equal pods."""
    given = template({"env": [{"name": "A", "value": "a"}], "securityContext": {}}, securityContext={})
    before = copy.deepcopy(given)
    assert built(given) == built(given)
    assert given == before
