"""The chart: what it makes of values is valid, confined, and says only what there is."""

from __future__ import annotations

import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from ottoscaler import __version__
from ottoscaler.cli.settings_table import SCHEMA, schema_with_settings
from ottoscaler.kube.manifest import WorkerDefaults, WorkerIdentity, build_pod
from ottoscaler.kube.templates import load_templates
from ottoscaler.localcluster.pod_security import restricted_violations
from ottoscaler.logs.backlog import SPOOL_BYTES
from ottoscaler.policy_file import PolicyFile
from ottoscaler.rpc.tokens import read_tokens
from ottoscaler.settings import FIELDS, Settings, load_settings
from tests.deploy.choices import DIGEST, MATRIX
from tests.deploy.helm import CHART, MANIFESTS, ROOT, HelmFailed, Object, Values, manifest, objects_of, render, run_helm

MONITORING = ("ServiceMonitor", "PrometheusRule")
every_choice = pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)


def pod_of(objects: dict[tuple[str, str], Object], name: str = "ottoscaler") -> Object:
    """The pod template of a Deployment."""
    template: Object = objects["Deployment", name]["spec"]["template"]
    return template


def environment(values: Values) -> dict[str, str]:
    """What of its own objects the scaler finds in its environment."""
    objects, environ = render(values), dict[str, str]()
    for source in pod_of(objects, values.get("name", "ottoscaler"))["spec"]["containers"][0]["envFrom"]:
        ((kind, reference),) = source.items()
        found = objects.get(({"configMapRef": "ConfigMap", "secretRef": "Secret"}[kind], reference["name"]), {})
        environ |= found.get("data", {}) | found.get("stringData", {})
    return environ


def test_helm_finds_nothing_to_say() -> None:
    """`helm lint`, strict, with default values."""
    assert "0 chart(s) failed" in run_helm("lint", "--strict", str(CHART))


def test_the_chart_is_of_this_version() -> None:
    """Version of chart, app and image are the package's."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)
    assert pod_of(render())["spec"]["containers"][0]["image"] == f"ottoscaler:{__version__}"


@every_choice
def test_every_object_is_valid(values: Values) -> None:
    """Each object fits Kubernetes' own schema, strictly; those of the Prometheus operator have none here."""
    for (kind, _), each in render(values).items():
        if kind not in MONITORING:
            validate(json.dumps(each))


@cache
def validate(text: str) -> None:
    """Raises ValidationError; most objects are the same for most values, and reading a schema takes 0.1 s."""
    kubernetes_validate.validate(json.loads(text), "1.36", strict=True)


@every_choice
def test_every_setting_is_one(values: Values) -> None:
    """What goes into the environment are settings there are, with values that pass their checks."""
    environ = environment(values)
    assert environ.keys() <= FIELDS.keys()
    assert isinstance(load_settings(environ), Settings)


def test_settings_arrive_as_they_were_meant() -> None:
    """Large numbers, lists, objects, truths and odd passwords pass through the chart unharmed."""
    settings = load_settings(environment(MATRIX["settings"]))
    assert settings.results_max_bytes == 268435456
    assert settings.worker_command == ("make", "a & b")
    assert settings.retry_policy == {"OutOfMemory": "final"}
    assert settings.platform_retry_started is True
    assert environment(MATRIX["password"])["REDIS_PASSWORD"] == 'p"$\\ä'


def test_every_setting_can_be_given() -> None:
    """The schema of the values names every setting there is and no other, the secret ones apart."""
    assert SCHEMA.read_text() == schema_with_settings(SCHEMA.read_text())
    known = json.loads(SCHEMA.read_text())["properties"]
    plain, secret = known["settings"]["properties"].keys(), known["secrets"]["properties"].keys()
    assert plain | secret == FIELDS.keys()
    assert secret == {"REDIS_PASSWORD", "REDIS_URL", *(name for name in FIELDS if name.endswith("_TOKEN"))}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"settings": {"MAX_WORKER": 5}}, "MAX_WORKER"),
        ({"settings": {"REDIS_PASSWORD": "x"}}, "REDIS_PASSWORD"),
        ({"replica": 3}, "replica"),
        ({"name": "Upper"}, "name"),
        ({"grpc": {"tokens": [{"name": "a", "sha256": "secret", "roles": ["scale"]}]}}, "sha256"),
        ({"grpc": {"tls": {"cert": "C"}}}, "grpc.tls.key"),
    ],
)
def test_a_mistake_is_refused(values: Values, words: str) -> None:
    """A misspelt value, a secret among the settings, a token in place of its digest: helm names the place."""
    with pytest.raises(HelmFailed, match=words):
        render(values)


def confined(spec: Object) -> None:
    """What the Pod Security level "restricted" asks for, and a root file system that cannot be written."""
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["enableServiceLinks"] is False
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert "cpu" not in container["resources"]["limits"]
        assert {"cpu", "memory"} == container["resources"]["requests"].keys()
    assert all({"hostPath"}.isdisjoint(volume) for volume in spec["volumes"])


def test_every_pod_is_confined() -> None:
    """The scaler's, Valkey's, and a worker's by the defaults; none gets variables of Services."""
    objects = render(MATRIX["trying out"])
    for each in objects.values():
        if each["kind"] == "Deployment":
            confined(each["spec"]["template"]["spec"])
            assert restricted_violations(each["spec"]["template"]["spec"]) == []
    worker = build_pod(WorkerIdentity("1-0", 1, 1, 1, "i", "e"), WorkerDefaults())["spec"]
    assert (worker["enableServiceLinks"], worker["automountServiceAccountToken"]) == (False, False)
    assert restricted_violations(worker) == []


@every_choice
def test_users_are_numbers(values: Values) -> None:
    """`runAsNonRoot` is only believed of a number: the kubelet cannot look up a name that an image gives its user."""
    for each in render(values).values():
        if each["kind"] == "Deployment":
            context = each["spec"]["template"]["spec"]["securityContext"]
            assert context["runAsNonRoot"] is True
            assert context["runAsUser"] > 0


def test_workers_images_can_be_pulled() -> None:
    """The secrets of a private registry go with the workers' account, which Kubernetes gives to every worker."""
    account = render(MATRIX["placement"])["ServiceAccount", "ottoscaler-worker"]
    assert account["imagePullSecrets"] == [{"name": "workers-registry"}]
    assert "imagePullSecrets" not in render()["ServiceAccount", "ottoscaler-worker"]


def test_the_role_is_small() -> None:
    """Three rules in one namespace: no secrets, no wildcard, nothing of the whole cluster."""
    objects = render()
    assert objects["Role", "ottoscaler"]["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["pods"],
            "verbs": ["create", "get", "list", "watch", "delete", "deletecollection"],
        },
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["list", "watch"]},
    ]
    assert not {kind for kind, _ in objects if kind.startswith("Cluster") or kind == "Namespace"}
    account = {"kind": "ServiceAccount", "name": "ottoscaler", "namespace": "default"}
    assert objects["RoleBinding", "ottoscaler"]["subjects"] == [account]
    assert objects["ServiceAccount", "ottoscaler-worker"]["automountServiceAccountToken"] is False
    assert environment({})["WORKER_SERVICE_ACCOUNT"] == "ottoscaler-worker"


def test_workers_may_have_a_namespace_of_their_own() -> None:
    """Role and the workers' policy go where NAMESPACE says, bound to the account where the scaler runs."""
    objects = render(MATRIX["settings"], "control")
    for kind, name in (("Role", ""), ("RoleBinding", ""), ("NetworkPolicy", "-workers")):
        assert objects[kind, f"ottoscaler{name}"]["metadata"]["namespace"] == "workers"
    assert objects["RoleBinding", "ottoscaler"]["subjects"][0]["namespace"] == "control"
    assert objects["Deployment", "ottoscaler"]["metadata"]["namespace"] == "control"
    assert ("ServiceAccount", "ottoscaler-worker") not in objects


@pytest.mark.parametrize("drain", [0, 20, 90.5, 86400])
def test_the_grace_outlasts_the_drain(drain: float) -> None:
    """The kubelet waits for the drain and 10 s more: the process ends by itself within 1 s after its deadline."""
    spec = pod_of(render({"settings": {"DRAIN_SECONDS": drain}}))["spec"]
    assert spec["terminationGracePeriodSeconds"] == math.ceil(drain) + 10


def test_a_rollout_starts_before_it_stops() -> None:
    """Two replicas, spread over nodes, none taken away before its successor is ready; one disruption at a time."""
    objects = render()
    spec = objects["Deployment", "ottoscaler"]["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    keys = [each["topologyKey"] for each in spec["template"]["spec"]["topologySpreadConstraints"]]
    assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    budget = objects["PodDisruptionBudget", "ottoscaler"]["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    for (kind, _), each in objects.items():
        selector: Any = each.get("spec", {}).get("selector") or {}
        if kind in ("Deployment", "Service", "PodDisruptionBudget"):
            assert selector.get("matchLabels", selector) == {"app": "ottoscaler"}


def test_no_template_may_carry_what_the_chart_selects_by() -> None:
    """Every Service, policy, budget and Deployment selects by the one label of which templates are refused values."""
    objects = render(MANIFESTS["try.yaml"] | {"name": "build-1", "networkPolicy": {"enabled": True}})
    own = load_settings(environment(MANIFESTS["try.yaml"] | {"name": "build-1"})).own_apps
    specs: list[Any] = [each.get("spec", {}) for each in objects.values()]
    selectors = [spec.get("selector") or spec.get("podSelector") or {} for spec in specs]
    selected = [each.get("matchLabels", each) for each in selectors]
    assert {key for labels in selected for key in labels} == {"app", "managed-by"}
    assert own == {labels["app"] for labels in selected if "app" in labels} == {"build-1", "redis"}


def test_probes_ask_the_right_pages() -> None:
    """Each probe its page, on the port of HTTP_PORT; without that door there is no probe."""
    (container,) = pod_of(render(MATRIX["settings"]))["spec"]["containers"]
    pages = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    assert pages == {
        "startup": {"path": "/startupz", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
        "liveness": {"path": "/livez", "port": "http"},
    }
    assert {"name": "http", "containerPort": 9000} in container["ports"]
    closed = render(MATRIX["closed doors"])
    assert not {"startupProbe", "livenessProbe", "ports"} & pod_of(closed)["spec"]["containers"][0].keys()
    assert ("Service", "ottoscaler") not in closed


@pytest.mark.parametrize(
    ("values", "changed"),
    [
        ({"settings": {"MAX_WORKERS": 7}}, "config"),
        ({"policy": {"version": 1}}, "config"),
        ({"secrets": {"REDIS_PASSWORD": "x"}}, "secret"),
        ({"grpc": {"tokens": [{"name": "a", "sha256": DIGEST, "roles": ["read"]}]}}, "secret"),
    ],
)
def test_a_change_rolls_the_pods(values: Values, changed: str) -> None:
    """What changes in ConfigMap or Secret changes the pods' annotation, and so the pods."""
    before, after = pod_of(render())["metadata"]["annotations"], pod_of(render(values))["metadata"]["annotations"]
    assert before[f"checksum/{changed}"] != after[f"checksum/{changed}"]


def egress_of(values: Values) -> list[tuple[Any, list[int]]]:
    """Where the scaler may go: peers (None: anywhere) and ports of each rule."""
    rules = render(values)["NetworkPolicy", "ottoscaler"]["spec"]["egress"]
    return [(rule.get("to"), sorted({port["port"] for port in rule["ports"]})) for rule in rules]


def test_the_scaler_reaches_what_it_needs_and_no_more() -> None:
    """DNS, Redis, the API server, otto-handler; in come otto-handler's calls and the scrapes."""
    spec = render()["NetworkPolicy", "ottoscaler"]["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    handler = [{"podSelector": {"matchLabels": {"app": "otto-handler"}}}]
    called, scraped = spec["ingress"]
    assert (called["from"], called["ports"]) == (handler, [{"port": 9090, "protocol": "TCP"}])
    assert (scraped["from"], scraped["ports"]) == ([{"namespaceSelector": {}}], [{"port": 8080, "protocol": "TCP"}])
    dns, redis, api, otto = egress_of({})
    assert dns[1] == [53]
    assert dns[0] is not None
    assert (redis, api, otto) == ((None, [6379]), (None, [443, 6443, 8443]), (handler, [8080]))


def test_the_policies_follow_the_values() -> None:
    """Ports of Redis and otto-handler are those of the settings; peers narrow them down."""
    assert (None, [6380]) in egress_of(MATRIX["outside Redis"])
    assert (None, [6390]) in egress_of(MATRIX["password"])
    assert egress_of(MATRIX["everything inline"])[3][1] == [8443]
    assert ([{"ipBlock": {"cidr": "10.0.0.5/32"}}], [6379]) in egress_of(MATRIX["tight policies"])
    assert len(egress_of(MATRIX["tight policies"])) == 5


@pytest.mark.parametrize(
    ("endpoint", "port"), [("http://c:4318", 4318), ("https://c.example.com/otlp", 443), ("http://c", 80)]
)
def test_traces_have_a_way_to_their_collector(endpoint: str, port: int) -> None:
    """Its port is opened, to the peers that are named, and the variables say where it is; without it nothing is."""
    values = {"otel": {"endpoint": endpoint, "env": {"OTEL_TRACES_SAMPLER_ARG": 0.1}}}
    (container,) = pod_of(render(values))["spec"]["containers"]
    assert {each["name"]: each["value"] for each in container["env"]} == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_TRACES_SAMPLER_ARG": "0.1",
    }
    assert egress_of(values)[4:] == [(None, [port])]
    assert ([{"podSelector": {"matchLabels": {"app": "collector"}}}], [4318]) in egress_of(MATRIX["traces"])
    assert "env" not in pod_of(render())["spec"]["containers"][0]


def test_workers_reach_all_but_the_metadata_address() -> None:
    """Nothing comes in to worker pods, and out they go everywhere but where clouds give out credentials."""
    spec = render()["NetworkPolicy", "ottoscaler-workers"]["spec"]
    labels = build_pod(WorkerIdentity("1-0", 1, 1, 1, "i", "e"), WorkerDefaults())["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()
    assert (spec["policyTypes"], spec["ingress"]) == (["Ingress", "Egress"], [])
    blocks = [peer["ipBlock"] for rule in spec["egress"] for peer in rule["to"] if "ipBlock" in peer]
    assert {address for block in blocks for address in block["except"]} == {"169.254.169.254/32", "fd00:ec2::254/128"}


def test_the_spool_of_logs_has_a_place() -> None:
    """Beside a root that cannot be written, the folder for temporary files is a volume as large as the spool gets."""
    pod = pod_of(render())["spec"]
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
    volumes = {each["name"]: each for each in pod["volumes"]}
    ((limit, medium),) = [
        (volumes[each["name"]]["emptyDir"]["sizeLimit"], volumes[each["name"]]["emptyDir"].get("medium"))
        for each in pod["containers"][0]["volumeMounts"]
        if each["mountPath"] == "/tmp"
    ]
    assert medium is None, "memory would count against the pod's limit"
    assert limit.endswith("Mi")
    assert SPOOL_BYTES * 1.2 < int(limit.removesuffix("Mi")) << 20 < SPOOL_BYTES * 2
    assert "TMPDIR" not in environment({}).keys() | set(re.findall(r"\bTMPDIR\b", (ROOT / "Dockerfile").read_text()))


def test_files_in_the_pod_can_be_read(tmp_path: Any) -> None:
    """Policy, templates and tokens as the chart writes them are what the scaler reads, where the settings say."""
    objects, environ = render(MATRIX["everything inline"]), environment(MATRIX["everything inline"])
    files = {
        "policy": objects["ConfigMap", "ottoscaler-policy"]["data"],
        "templates": objects["ConfigMap", "ottoscaler-templates"]["data"],
        "tokens": objects["Secret", "ottoscaler-tokens"]["stringData"],
        "tls": objects["Secret", "ottoscaler-tls"]["stringData"],
    }
    mounts = {each["name"]: each["mountPath"] for each in _mounts(objects)}
    for folder, content in files.items():
        for name, text in content.items():
            path = tmp_path / mounts[folder].lstrip("/") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    at = {name: str(tmp_path / value.lstrip("/")) for name, value in environ.items() if value.startswith("/etc/")}
    assert PolicyFile(at["POLICY_FILE"]).rules.images == ("registry.example.com/**",)
    assert load_templates(at["WORKER_TEMPLATE"]).names == {"default", "large"}
    assert [token.name for token in read_tokens(at["GRPC_TOKENS_FILE"])] == ["otto-handler"]
    assert environ["GRPC_INSECURE"] == "false"
    for name, content in (("GRPC_TLS_CERT", "C\nC\n"), ("GRPC_TLS_KEY", "K\n"), ("GRPC_TLS_CLIENT_CA", "A\n")):
        assert Path(at[name]).read_text() == content


def _mounts(objects: dict[tuple[str, str], Object]) -> list[Object]:
    mounts: list[Object] = pod_of(objects)["spec"]["containers"][0]["volumeMounts"]
    return mounts


def test_existing_objects_are_named_and_not_made() -> None:
    """Where somebody else keeps them, the pod refers to theirs, and the chart makes no Secret and no file."""
    objects = render(MATRIX["existing objects"])
    assert not {key for key in objects if key[0] == "Secret"}
    assert [name for kind, name in objects if kind == "ConfigMap"] == ["ottoscaler"]
    spec = pod_of(objects)["spec"]
    sources = [next(iter(source.values()))["name"] for source in spec["containers"][0]["envFrom"]]
    assert sources == ["ottoscaler", "mine", "mine"]
    named = [(volume.get("configMap") or volume.get("secret")) for volume in spec["volumes"]]
    assert [each.get("name") or each.get("secretName") for each in named if each] == ["mine"] * 4


def test_without_a_password_one_may_come_later() -> None:
    """A Secret with the release's name is read if it is there."""
    sources = pod_of(render())["spec"]["containers"][0]["envFrom"]
    assert sources[-1] == {"secretRef": {"name": "ottoscaler", "optional": True}}


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_manifests_are_made_from_the_chart(name: str) -> None:
    """`make manifests` writes them; committed, they are what helm makes now."""
    assert (CHART.parent / name).read_text() == manifest(name)


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_manifests_move_by_one_word(name: str) -> None:
    """The sentence on top of them moves every object, and the account that the Role is bound to, to a namespace."""
    moved = objects_of(re.sub("namespace: default$", "namespace: team-a", manifest(name), flags=re.MULTILINE))
    assert {each["metadata"]["namespace"] for each in moved.values()} == {"team-a"}
    assert moved["RoleBinding", "ottoscaler"]["subjects"][0]["namespace"] == "team-a"


def test_trying_out_is_complete() -> None:
    """try.yaml brings the Redis that it names, which keeps every write in a file and says that it is for trying out."""
    objects = objects_of((CHART.parent / "try.yaml").read_text())
    settings = load_settings(objects["ConfigMap", "ottoscaler"]["data"])
    service = objects["Service", settings.redis_host]["spec"]
    assert service["ports"][0]["port"] == settings.redis_port
    pod = pod_of(objects, "redis-not-for-production")
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    words = " ".join(pod["spec"]["containers"][0]["args"])
    assert "--appendonly yes --appendfsync always" in words
    assert not {kind for kind, name in render() if name.startswith("redis")}
