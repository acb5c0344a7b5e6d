"""Processes of the image as they run in a cluster: another user, the image's environment, nothing to write to.

As root a process can also be a `pod`: the whole file system cannot be written, and the account's files are where
Kubernetes mounts them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.dockerfile import Image

USER = 65532
AS_ROOT = os.geteuid() == 0
BECOME = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if AS_ROOT else []
"""Only root can become another user; without it the tests' own is not root either."""
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
MOUNT = (
    "mount --make-rprivate / && mount -t tmpfs tmpfs /var/run/ && "
    f'mkdir -p {ACCOUNT} && cp "$1"/* {ACCOUNT} && shift && mount -o remount,bind,ro / && exec "$@"'
)


def find_python() -> str:
    """A Python of this machine that the image's user can start: that of the tests may lie in root's own folder."""
    look = "import sys, os; os.listdir(sys.prefix); import ssl; sys.exit(sys.version_info < (3, 11))"
    for python in (getattr(sys, "_base_executable", sys.executable), "/usr/local/bin/python3", "/usr/bin/python3"):
        words = [*BECOME, "env", python, "-I", "-c", look]
        if Path(python).exists() and subprocess.run(words, capture_output=True).returncode == 0:
            return python
    pytest.skip("every Python 3.11 or later of this machine lies in a folder that only its owner may enter")


class Container:
    """How a process of the image is started; `account` (a folder of token, ca.crt, namespace) makes it a pod's."""

    def __init__(self, image: Image, folder: Path, account: Path | None = None) -> None:
        assert image.user == f"{USER}:{USER}"
        self.directory = folder / "read-only"
        self.directory.mkdir(exist_ok=True)
        self.directory.chmod(0o555)
        self.environ = {name: value.replace("/opt/", f"{image.root}/opt/") for name, value in image.env.items()}
        self.entrypoint = [str(image.place("/opt/ottoscaler/bin") / image.entrypoint[0]), *image.entrypoint[1:]]
        self.mounted = ["unshare", "--mount", "sh", "-c", MOUNT, "sh", str(account)] if account else []

    def words(self, *arguments: str) -> list[str]:
        """The command line; `env` goes to the directory first, because what starts it here cannot."""
        return [*self.mounted, *BECOME, "env", f"--chdir={self.directory}", *self.entrypoint, *arguments]

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        words = self.words(*arguments)
        return subprocess.run(words, env={**self.environ, **environ}, capture_output=True, text=True, timeout=60)


def can_mount() -> bool:
    """Whether this machine lets us have mounts of our own, as root in most places."""
    words = ["unshare", "--mount", "sh", "-c", "mount --make-rprivate / && mount -t tmpfs tmpfs /var/run/"]
    return AS_ROOT and subprocess.run(words, capture_output=True).returncode == 0
