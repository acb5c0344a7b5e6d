"""What names, variables and quantities mean: images, environments, selectors, pure and without a cluster."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottoscaler.localcluster.environment import ConfigError, command_line, container_environment, expand
from ottoscaler.localcluster.images import Image, Refusal, find_image
from ottoscaler.localcluster.quantities import as_bytes, as_millicores, parse_quantity
from ottoscaler.localcluster.scheduler import fits_selector

Json = dict[str, Any]
POD: Json = {
    "metadata": {
        "name": "p",
        "namespace": "n",
        "uid": "u",
        "labels": {"app": "x", "b": "y"},
        "annotations": {"a.b/c": "note"},
    },
    "spec": {"nodeName": "local", "serviceAccountName": "default", "containers": []},
}
OBJECTS: dict[tuple[str, str], Json] = {
    ("configmaps", "settings"): {"data": {"A": "1", "B": "2"}},
    ("secrets", "keys"): {"data": {"K": "c2VjcmV0"}},
}


def environment(**container: Any) -> dict[str, str]:
    """The variables of a container of POD."""
    return container_environment(
        POD, container, lambda kind, name: OBJECTS.get((kind, name)), pod_ip="127.88.0.2", host_ip="127.0.0.1"
    )


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("grafana/k6", "docker.io/grafana/k6:latest"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("ghcr.io/x/y@sha256:" + "a" * 64, "ghcr.io/x/y@sha256:" + "a" * 64),
    ],
)
def test_names_are_completed(image: str, name: str) -> None:
    """Registry, library and tag are filled in as a runtime does."""
    found = find_image(image, "Always")
    assert isinstance(found, Image)
    assert found.name == name


@pytest.mark.parametrize(
    ("image", "policy", "reason"),
    [
        ("NOT//valid", "Always", "InvalidImageName"),
        ("busybox:", "Never", "InvalidImageName"),
        ("r.invalid:5000/x", "Always", "ErrImagePull"),
        ("r.invalid/x", "Never", "ErrImageNeverPull"),
        ("app-missing", "IfNotPresent", "ErrImagePull"),
        ("missing/app", "IfNotPresent", None),
    ],
)
def test_names_that_bring_no_image(image: str, policy: str, reason: str | None) -> None:
    """The reason says whether the name is wrong, the image absent, or its registry not to be reached."""
    found = find_image(image, policy)
    assert (found.reason if isinstance(found, Refusal) else None) == reason


@given(st.text(max_size=80), st.sampled_from(["Always", "IfNotPresent", "Never"]))
def test_any_text_is_an_image_or_a_reason(image: str, policy: str) -> None:
    """No name makes an exception."""
    assert isinstance(find_image(image, policy), Image | Refusal)


def test_every_source_of_variables() -> None:
    """Values, fields, resources, ConfigMaps, Secrets and whole objects; later ones refer to earlier ones."""
    fields = {
        "NAME": "metadata.name",
        "LABEL": "metadata.labels['app']",
        "NOTE": "metadata.annotations['a.b/c']",
        "ALL": "metadata.labels",
        "NODE": "spec.nodeName",
        "IP": "status.podIP",
    }
    variables = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
    variables += [
        {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "K"}}},
        {"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "A"}}},
        {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "A", "optional": True}}},
        {"name": "TEXT", "value": "$(NAME)-$(C_B)-$(LATER)-$$(NAME)"},
        {"name": "EMPTY"},
    ]
    got = environment(
        env=variables,
        envFrom=[{"prefix": "C_", "configMapRef": {"name": "settings"}}],
        resources={"limits": {"memory": "128Mi", "cpu": "500m"}},
    )
    assert got == {
        "C_A": "1",
        "C_B": "2",
        "NAME": "p",
        "LABEL": "x",
        "NOTE": "note",
        "ALL": 'app="x"\nb="y"',
        "NODE": "local",
        "IP": "127.88.0.2",
        "MEMORY": "128",
        "CPU": "1",
        "KEY": "secret",
        "ONE": "1",
        "TEXT": "p-2-$(LATER)-$(NAME)",
        "EMPTY": "",
    }


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "no", "key": "k"}}, 'configmap "no" not found'),
        ({"secretKeyRef": {"name": "keys", "key": "k"}}, "couldn't find key k in Secret n/keys"),
        ({"fieldRef": {"fieldPath": "spec.nothing"}}, "unsupported fieldPath: spec.nothing"),
    ],
)
def test_what_is_missing_is_named(source: Json, message: str) -> None:
    """A reference to nothing says what is missing, in a kubelet's words."""
    with pytest.raises(ConfigError) as caught:
        environment(env=[{"name": "X", "valueFrom": source}])
    assert str(caught.value) == message


def test_words_to_run() -> None:
    """Command and args are joined and expanded; neither is the image's own command."""
    assert command_line({"command": ["sh", "-c"], "args": ["echo $(A)"]}, {"A": "1"}) == ["sh", "-c", "echo 1"]
    assert command_line({"args": ["sleep", "1"]}, {}) == ["sleep", "1"]
    assert command_line({}, {}) == ["sh"]


@given(st.text(alphabet="$()AB x", max_size=20))
def test_expansion_of_text_without_dollars_pairs(text: str) -> None:
    """What is no reference stays, but for `$$`; expanding with no variables only halves dollars."""
    assert expand(text, {}).replace("$", "") == text.replace("$", "")
    if "$" not in text:
        assert expand(text, {"A": "1"}) == text


def test_quantities() -> None:
    """Suffixes of cores and bytes, rounding up, and a refusal that says what was given."""
    assert [as_millicores(text) for text in ("1", "500m", "0.1", "1000", 2)] == [1000, 500, 100, 1_000_000, 2000]
    assert [as_bytes(text) for text in ("128Mi", "1G", "5Ti", "1e3", "0.5Ki")] == [2**27, 10**9, 5 * 2**40, 1000, 512]
    with pytest.raises(ValueError, match="quantity '12 Mi'"):
        parse_quantity("12 Mi")


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        ({"key": "disk", "operator": "In", "values": ["ssd"]}, True),
        ({"key": "disk", "operator": "NotIn", "values": ["ssd"]}, False),
        ({"key": "disk", "operator": "Exists"}, True),
        ({"key": "disk", "operator": "DoesNotExist"}, False),
    ],
)
def test_node_affinity(rule: Json, fits: bool) -> None:
    """Required node affinity and nodeSelector must both fit."""
    terms = {"nodeSelectorTerms": [{"matchExpressions": [rule]}]}
    spec = {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}
    assert fits_selector(spec, {"disk": "ssd"}) is fits
    assert not fits_selector(spec | {"nodeSelector": {"zone": "a"}}, {"disk": "ssd"})
