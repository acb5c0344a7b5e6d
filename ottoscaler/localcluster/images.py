"""What an image name means here: nothing is pulled, and yet names can be wrong, absent or unreachable. Pure.

- A name that is no image reference (`NOT//valid`): InvalidImageName.
- A registry host that ends in `.invalid`: it does not resolve, so the image cannot be pulled.
- A repository whose last part contains `missing` (`busybox-missing:1`): its registry answers "not found".
- Every other image is present, whatever its pull policy. It has no entrypoint, its command is `sh`, and it
  would run as root: with neither command nor args a container runs `sh` with an empty input, which exits 0.

The commands themselves come from this machine: an image brings no files.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

DEFAULT_COMMAND = ("sh",)

_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]+)?)"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<path>(?:{_HOST}/)?{_PART}(?:/{_PART})*)(?::(?P<tag>\w[\w.-]{{0,127}}))?(?:@(?P<digest>sha256:[0-9a-f]{{64}}))?"
)
_RESOLVER = "127.0.0.53:53"


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is present: `name` with registry and tag as a runtime reports it, `id` its digest."""

    name: str
    id: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a container cannot have its image. `can_retry`: a pull failed, so the kubelet tries again and again."""

    reason: Literal["InvalidImageName", "ErrImageNeverPull", "ErrImagePull"]
    message: str
    can_retry: bool = False


@lru_cache(maxsize=1024)
def find_image(image: str, pull_policy: str) -> Image | Refusal:
    """The image, or why there is none; `pull_policy` is Always, IfNotPresent or Never."""
    reference = _REFERENCE.fullmatch(image)
    if reference is None:
        cause = f'couldn\'t parse image name "{image}": invalid reference format'
        return Refusal("InvalidImageName", f'Failed to apply default image tag "{image}": {cause}')
    host, repository = _split_host(reference["path"])
    version = reference["digest"] or reference["tag"] or "latest"
    full = f"{host}/{repository}{'@' if reference['digest'] else ':'}{version}"
    problem = _pull_problem(host, repository, version, full)
    if problem is None:
        return Image(full, "sha256:" + hashlib.sha256(full.encode()).hexdigest())
    if pull_policy == "Never":
        message = f'Container image "{image}" is not present with pull policy of Never'
        return Refusal("ErrImageNeverPull", message)
    failure = f'failed to pull and unpack image "{full}": failed to resolve reference "{full}": {problem}'
    return Refusal("ErrImagePull", failure, can_retry=True)


def _split_host(path: str) -> tuple[str, str]:
    """Registry host and repository; what has no host comes from docker.io, as runtimes read it."""
    first, slash, rest = path.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return "docker.io", path if slash else f"library/{path}"


def _pull_problem(host: str, repository: str, version: str, full: str) -> str | None:
    name = host.partition(":")[0]
    if name.endswith(".invalid"):
        url = f"https://{host}/v2/{repository}/manifests/{version}"
        return f'failed to do request: Head "{url}": dial tcp: lookup {name} on {_RESOLVER}: no such host'
    if "missing" in repository.rpartition("/")[2]:
        return f"{full}: not found"
    return None
