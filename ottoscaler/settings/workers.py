"""The settings of Kubernetes and of the worker pods."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from ottoscaler.parsing import json_list, matching, path, quantity, text
from ottoscaler.settings.field import Field
from ottoscaler.settings.redis import RedisSettings

IN_CLUSTER_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_NAME = rf"{DNS_LABEL}(\.{DNS_LABEL})*"


def _own_namespace(environ: Mapping[str, str]) -> str:
    """The pod's own namespace when it is to reach the API as that pod; a kubeconfig wins over that."""
    if environ.get("KUBECONFIG", "").strip():
        return "default"
    try:
        return IN_CLUSTER_NAMESPACE.read_text().strip() or "default"
    except OSError:
        return "default"


class WorkerSettings(RedisSettings, frozen=True, kw_only=True):
    """Where workers run and what they are by default."""

    kubeconfig: Annotated[
        str | None,
        Field(path(), None, "Kubeconfig file; set, it wins over the access that a pod has in its cluster."),
    ]
    namespace: Annotated[
        str,
        Field(
            matching(DNS_LABEL, "a namespace: up to 63 of a-z, 0-9 and -", 63),
            _own_namespace,
            "Namespace of the worker pods.",
            "the pod's own in a cluster, else default",
        ),
    ]
    instance_name: Annotated[
        str,
        Field(
            text(),
            "ottoscaler",
            "Tells installations apart that share a namespace; each touches only its own pods.",
        ),
    ]

    otto_agent_image: Annotated[
        str, Field(text("an image name"), "busybox:latest", "Image of the workers, where the template names none.")
    ]
    worker_command: Annotated[
        tuple[str, ...] | None,
        Field(
            json_list(),
            None,
            "Command of the workers, where the template has none; [] is the image's own. Given alone, it also "
            "replaces the arguments. Unset, the default image runs a short demonstration.",
        ),
    ]
    worker_args: Annotated[
        tuple[str, ...] | None,
        Field(json_list(), None, "Arguments of the workers; given alone, they also replace the command."),
    ]
    worker_template: Annotated[
        str | None,
        Field(
            path(),
            None,
            "A YAML file of a v1 PodTemplate, or a folder of them that events choose from by name (file stem); the "
            "one called default serves events that name none.",
        ),
    ]
    worker_service_account: Annotated[
        str | None,
        Field(
            matching(DNS_NAME, "the name of a service account: up to 253 of a-z, 0-9, - and ."),
            None,
            "Service account of the worker pods; unset, the namespace's default. Its token is not mounted.",
        ),
    ]
    worker_cpu_limit: Annotated[str, Field(quantity("1m", "500m"), "500m", "CPU limit and request of a worker.")]
    worker_memory_limit: Annotated[str, Field(quantity("1", "128Mi"), "128Mi", "Memory limit and request of a worker.")]

    @property
    def own_apps(self) -> frozenset[str]:
        """The values of the label `app` by which the chart's Services and policies select the scaler and its Redis."""
        return frozenset({self.instance_name, self.redis_address.host})
