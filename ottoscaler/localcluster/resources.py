"""The resources that are served: their names, groups, kinds and verbs, as discovery tells them."""

from __future__ import annotations

from dataclasses import dataclass

_ALL = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_SUB = ("get", "patch", "update")


@dataclass(frozen=True, slots=True)
class Subresource:
    """A part of a resource with a path of its own, as `pods/log`; `group` where its kind lives elsewhere."""

    name: str
    kind: str
    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object: "pods" of group "" and version "v1" are of kind Pod."""

    plural: str
    kind: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = _ALL
    subresources: tuple[Subresource, ...] = ()

    @property
    def api_version(self) -> str:
        """What stands in `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """The name that messages use: `pods`, `leases.coordination.k8s.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def singular(self) -> str:
        """The name in the singular, as kubectl accepts it."""
        return self.kind.lower()


PODS = Resource(
    "pods",
    "Pod",
    short_names=("po",),
    categories=("all",),
    subresources=(
        Subresource("binding", "Binding", ("create",)),
        Subresource("eviction", "Eviction", ("create",), "policy", "v1"),
        Subresource("log", "Pod", ("get",)),
        Subresource("status", "Pod", _SUB),
    ),
)
NAMESPACES = Resource(
    "namespaces",
    "Namespace",
    namespaced=False,
    short_names=("ns",),
    verbs=tuple(verb for verb in _ALL if verb != "deletecollection"),
    subresources=(Subresource("status", "Namespace", _SUB),),
)
ACCESS_REVIEWS = Resource(
    "selfsubjectaccessreviews",
    "SelfSubjectAccessReview",
    "authorization.k8s.io",
    namespaced=False,
    verbs=("create",),
)

RESOURCES = (
    Resource("configmaps", "ConfigMap", short_names=("cm",)),
    Resource("events", "Event", short_names=("ev",)),
    NAMESPACES,
    Resource(
        "nodes",
        "Node",
        namespaced=False,
        short_names=("no",),
        subresources=(Subresource("status", "Node", _SUB),),
    ),
    Resource(
        "persistentvolumeclaims",
        "PersistentVolumeClaim",
        short_names=("pvc",),
        subresources=(Subresource("status", "PersistentVolumeClaim", _SUB),),
    ),
    PODS,
    Resource(
        "resourcequotas",
        "ResourceQuota",
        short_names=("quota",),
        subresources=(Subresource("status", "ResourceQuota", _SUB),),
    ),
    Resource("secrets", "Secret"),
    Resource("serviceaccounts", "ServiceAccount", short_names=("sa",)),
    Resource("services", "Service", short_names=("svc",), categories=("all",)),
    Resource("leases", "Lease", "coordination.k8s.io"),
    ACCESS_REVIEWS,
    Resource("priorityclasses", "PriorityClass", "scheduling.k8s.io", namespaced=False, short_names=("pc",)),
)

_BY_PATH = {(resource.group, resource.version, resource.plural): resource for resource in RESOURCES}
GROUPS = tuple(dict.fromkeys((resource.group, resource.version) for resource in RESOURCES))


def find_resource(group: str, version: str, plural: str) -> Resource | None:
    """The resource at that path, or None."""
    return _BY_PATH.get((group, version, plural))
