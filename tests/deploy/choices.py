"""The values that the chart is tried with: each choice that there is, at least once."""

from __future__ import annotations

from tests.deploy.helm import Values

DIGEST = "0" * 64
TEMPLATE = {
    "apiVersion": "v1",
    "kind": "PodTemplate",
    "template": {"spec": {"containers": [{"name": "worker", "image": "registry.example.com/job:1"}]}},
}
MATRIX: dict[str, Values] = {
    "default": {},
    "one replica": {"replicas": 1},
    "another name": {"name": "team-a-scaler"},
    "outside Redis": {"secrets": {"REDIS_URL": "rediss://otto:pw@redis.example.com:6380/0"}},
    "password": {"redis": {"host": "redis.example.com", "port": 6390}, "secrets": {"REDIS_PASSWORD": 'p"$\\ä'}},
    "existing objects": {
        "existingConfigMap": "mine",
        "existingSecret": "mine",
        "existingPolicy": "mine",
        "existingTemplates": "mine",
        "grpc": {"existingTokens": "mine", "tls": {"existingSecret": "mine", "requireClientCertificate": True}},
    },
    "everything inline": {
        "policy": {"version": 1, "images": ["registry.example.com/**"]},
        "templates": {"default": TEMPLATE, "large": TEMPLATE},
        "grpc": {
            "tokens": [{"name": "otto-handler", "sha256": DIGEST, "roles": ["scale"]}],
            "tls": {"cert": "C\nC\n", "key": "K\n", "clientCA": "A\n"},
        },
        "settings": {"OTTO_HANDLER_HOST": "otto-handler:8443"},
    },
    "settings": {
        "settings": {
            "DRAIN_SECONDS": 90.5,
            "RESULTS_MAX_BYTES": 268435456,
            "WORKER_COMMAND": ["make", "a & b"],
            "RETRY_POLICY": {"OutOfMemory": "final"},
            "PLATFORM_RETRY_STARTED": True,
            "NAMESPACE": "workers",
            "WORKER_SERVICE_ACCOUNT": "theirs",
            "HTTP_PORT": 9000,
        }
    },
    "closed doors": {"settings": {"HTTP_PORT": 0, "GRPC_ENABLED": False}},
    "no policies": {"networkPolicy": {"enabled": False}, "podDisruptionBudget": {"enabled": False}},
    "tight policies": {
        "networkPolicy": {
            "redis": {"peers": [{"ipBlock": {"cidr": "10.0.0.5/32"}}]},
            "apiServer": {"peers": [{"ipBlock": {"cidr": "10.96.0.1/32"}}], "ports": [443]},
            "extraEgress": [{"ports": [{"port": 4317, "protocol": "TCP"}]}],
            "extraIngress": [{"from": [{"podSelector": {}}]}],
        }
    },
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
    },
    "traces": {
        "otel": {
            "endpoint": "http://collector.observability:4318",
            "env": {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": 0.1},
        },
        "networkPolicy": {"otel": {"peers": [{"podSelector": {"matchLabels": {"app": "collector"}}}]}},
    },
    "trying out": {"valkey": {"enabled": True}, "redis": {"host": "my-redis", "port": 6380}},
    "placement": {
        "imagePullSecrets": [{"name": "registry"}],
        "workerImagePullSecrets": [{"name": "workers-registry"}],
        "image": {"repository": "registry.example.com/ottoscaler", "tag": "next"},
        "nodeSelector": {"pool": "control"},
        "tolerations": [{"key": "control", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "system-cluster-critical",
        "podLabels": {"team": "a"},
        "podAnnotations": {"a": "b"},
        "serviceAccountAnnotations": {"a": "b"},
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    },
}
