"""The one node: its settings, its object in the API, and what all pods on it share."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from ottoscaler.localcluster.guard import Guard
from ottoscaler.localcluster.logs import MAX_LOG_BYTES
from ottoscaler.localcluster.memory import MemorySampler
from ottoscaler.localcluster.pod_events import PodEvents
from ottoscaler.localcluster.store import AlreadyExists, NotFound, Store, format_time

Json = dict[str, Any]


@dataclass(frozen=True)
class NodeSettings:
    """How the node behaves; all times in seconds.

    Defaults are quicker than a real node where a person would wait (there: `start_delay` 0.7, `phase_delay` 1.1,
    `removal_delay` 0.8, `back_off_shown` 10, `retry` 13), and as in a real one elsewhere.
    """

    cpu: str = "64"  # allocatable; compared with each pod alone: the node is never full
    memory: str = "256Gi"
    labels: Mapping[str, str] = field(default_factory=dict)
    start_delay: float = 0.0  # between the volumes of a pod and its first container: the sandbox is set up
    phase_delay: float = 0.05  # between a container's end and the pod's phase
    removal_delay: float = 0.1  # between the final status of a deleted pod and its DELETED
    image_backoff: float = 10.0  # before an image is pulled again; doubles up to max_backoff
    back_off_shown: float = 0.2  # how long ErrImagePull shows before ImagePullBackOff
    crash_backoff: float = 10.0  # before a container runs a third time; doubles up to max_backoff
    max_backoff: float = 300.0
    retry: float = 1.0  # between looks for a missing ConfigMap, Secret or volume
    memory_interval: float = 0.25  # between samples of processes with a memory limit
    max_log_bytes: int = MAX_LOG_BYTES  # a log file is rotated beyond it
    node_ip: str = "127.0.0.1"


class Node:
    """What the pods of one kubelet share: store, settings, events, folders, addresses, and whether it is heard."""

    def __init__(self, store: Store, data_dir: Path, name: str, settings: NodeSettings) -> None:
        self.store, self.name, self.settings = store, name, settings
        self.events = PodEvents(store, name)
        self.root = data_dir.resolve() / f"kubelet-{secrets.token_hex(4)}"
        self.guard = Guard(self.root)
        self.memory = MemorySampler(settings.memory_interval)
        self.ended_marks: set[str] = set()
        self.something_ended = trio.Event()
        self.silent = False
        self._heard = trio.Event()  # the end of the silence, if there is one
        self._addresses = 0

    @property
    def now(self) -> str:
        """The wall clock as the API writes it."""
        return format_time(self.store.now())

    def next_address(self) -> str:
        """An address of its own for each pod: on Linux all of 127.0.0.0/8 reaches this machine."""
        self._addresses += 1
        number = self._addresses % (254 * 254 * 16)
        return f"127.{88 + number // (254 * 254)}.{number // 254 % 254}.{number % 254 + 1}"

    def lookup(self, namespace: str, resource: str, name: str) -> Json | None:
        """A ConfigMap or Secret, or None."""
        try:
            return self.store.get(resource, namespace, name)
        except NotFound:
            return None

    def fall_silent(self) -> None:
        """From now on the API hears nothing from this kubelet, and it hears nothing of the API; pods go on."""
        if not self.silent:
            self.silent = True
            self._heard = trio.Event()

    def come_back(self) -> None:
        """The end of `fall_silent`."""
        self.silent = False
        self._heard.set()

    async def wait_heard(self) -> None:
        """Wait until the node is not silent."""
        while self.silent:
            await self._heard.wait()

    def register(self) -> None:
        """Put the node's object into the API, if it is not there."""
        if self.lookup("", "nodes", self.name) is None:
            try:
                self.store.create("nodes", node_object(self.name, self.settings, self.now))
            except AlreadyExists:
                return

    def note_ended(self, mark: str) -> None:
        """A container's run has ended: what still carries its mark is to be swept away."""
        self.ended_marks.add(mark)
        self.something_ended.set()

    def remove_files(self) -> None:
        """Remove everything that this kubelet wrote."""
        shutil.rmtree(self.root, ignore_errors=True)


def node_labels(name: str, settings: NodeSettings) -> dict[str, str]:
    """The labels that a nodeSelector may name."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    usual = {"hostname": name, "os": "linux", "arch": machine}
    return {f"kubernetes.io/{key}": value for key, value in usual.items()} | dict(settings.labels)


def node_object(name: str, settings: NodeSettings, now: str) -> Json:
    """The node as the API shows it, ready."""
    room = {"cpu": settings.cpu, "memory": settings.memory, "pods": "110000"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"}
    times = {"lastHeartbeatTime": now, "lastTransitionTime": now}
    addresses = [{"type": "InternalIP", "address": settings.node_ip}, {"type": "Hostname", "address": name}]
    info = {"operatingSystem": "linux", "architecture": platform.machine(), "kernelVersion": os.uname().release}
    info |= {"kubeletVersion": "v1.36.0-local", "containerRuntimeVersion": "local-processes://1", "osImage": "local"}
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": name, "labels": node_labels(name, settings)},
        "spec": {},
        "status": {
            "capacity": room,
            "allocatable": room,
            "conditions": [ready | times],
            "addresses": addresses,
            "nodeInfo": info,
        },
    }
