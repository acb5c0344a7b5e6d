"""Seeded hostile events against every policy: no pod goes beyond it, and none outside Pod Security "restricted".

    python -m tests.proof.policy_fuzz --requests 100000 --seed 1

Each event is judged as the poller judges it, and the pods of those that pass are built as the service builds them; one
in ten also goes through a whole scaler, and what its API is sent is judged. The judge here reads the pod alone, with
words of its own, and must agree in both directions: what was refused by the policy really goes beyond it.
"""

from __future__ import annotations

import argparse
import logging
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock

from ottoscaler.drain import Drain
from ottoscaler.events import BadEntry, Event, Limits, Pairs, parse_entry
from ottoscaler.kube.templates import Templates
from ottoscaler.localcluster.pod_security import restricted_violations
from ottoscaler.localcluster.quantities import parse_quantity
from ottoscaler.policy import Policy
from ottoscaler.policy_file import PolicyFile
from ottoscaler.service import _build_site
from ottoscaler.settings import load_settings
from ottoscaler.spec import Spec
from ottoscaler.spine.rings import Rings
from ottoscaler.spine.site import Site
from ottoscaler.startup import Startup
from ottoscaler.stream.base import Era
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from ottoscaler.stream.session import Session
from tests.proof.policy_requests import Requests
from tests.spine.scaler import BACKOFF
from tests.spine.world import World
from tests.spine.world_kube import WorldKube

CONFINED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
LIMITS = {"limits": {"cpu": "500m", "memory": "64Mi"}}
WORKER = {"name": "worker"}
TEMPLATES: dict[str, dict[str, Any]] = {
    "gpu": {"spec": {"containers": [WORKER | {"image": "gpu:1", "command": ["train"], "resources": LIMITS}]}},
    "beside": {
        "spec": {
            "containers": [WORKER, {"name": "b", "image": "b:1", "securityContext": CONFINED, "resources": LIMITS}],
            "initContainers": [{"name": "i", "image": "i:1", "securityContext": CONFINED, "resources": LIMITS}],
        }
    },
    "huge": {"spec": {"containers": [WORKER | {"resources": {"limits": {"cpu": 64, "memory": "1Ti"}}}]}},
    "slow": {"spec": {"containers": [WORKER], "activeDeadlineSeconds": 7200}},
}
OWN_IMAGES = {"busybox:latest", "gpu:1"}


@dataclass(frozen=True)
class Case:
    """A policy's file, and what it means in words of this judge: patterns as regular expressions, None = no limit."""

    text: str | None
    images: str = "(?!)"
    commands: str | None = None  # of the words, joined by line ends, behind "image\n" where the image's own is run
    cpu: float | None = None
    memory: float | None = None
    workers: int = 10_000
    timeout: int | None = None
    is_broken: bool = False


CASES = (
    Case(None),
    Case(
        'version: 1\nimages: ["registry.example.com/team/*"]\ncommands: [[make, ...], [sh, -c, "echo *"], '
        '[ENTRYPOINT, --shard, "*"]]\nceilings: {cpu: 1, memory: 1Gi, workers: 5, timeout_seconds: 3600}\n',
        images=r"registry\.example\.com/team/[^/]*",
        commands=r"make(\0.*)?|sh\0-c\0echo [^/\0]*|<image>\0--shard\0[^/\0]*",
        cpu=1,
        memory=2**30,
        workers=5,
        timeout=3600,
    ),
    Case("version: 1\ncommands: []\nceilings: {memory: 128Mi}\n", commands="(?!)", memory=128 * 2**20),
    Case('version: 1\nimages: ["**"]\nceilings: {workers: 2, timeout_seconds: 60}', images=".*", workers=2, timeout=60),
    Case("version: 1\nceilings: {workers: 3}\n", workers=3, is_broken=True),
)


class Beyond(AssertionError):
    """A pod that the policy does not allow, or a refusal that it does not ask for."""


class Bench:
    """One case with the site that the service would build; `sent` are the pods that the API was sent."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case = case
        self.sent: list[Mapping[str, Any]] = []
        self.server = MemoryServer()
        self.file = PolicyFile(None)
        if case.text is not None:
            path = folder / f"{CASES.index(case)}.yaml"
            path.write_text(case.text)
            self.file = PolicyFile(str(path))
            if case.is_broken:
                path.write_text("version: 1\nversion: 1\n")

    def open(self, era: Era, world: World) -> tuple[Site, Limits, Session, MemoryStream]:
        """The site, limits, session and stream as the service makes them."""
        settings = load_settings({"REDIS_URL": "memory://"})
        stream = MemoryStream(self.server, "s1")
        session = Session(stream, 3.0, era.id, believed=frozenset, on_lost=lambda lost: None)
        kube = Recorder(world, self.sent)
        templates = Templates(TEMPLATES)
        site = _build_site(settings, stream, session, kube, era, templates, self.file)  # type: ignore[arg-type]  # twin
        judge = Policy(self.file, templates.images | {settings.otto_agent_image}, site.build_pod).judge
        return site, Limits(10_000, 65_536, templates.names, judge), session, stream

    def check(self, event: Event, pod: Mapping[str, Any]) -> str:
        """Why the pod must not be; empty: it may be."""
        case, spec = self.case, pod["spec"]
        ours = next(c for c in spec["containers"] if c["name"] == "worker")
        if case.is_broken and event.spec not in (None, Spec()):
            return "asked while the policy is broken"
        if event.pod_count > case.workers:
            return "workers"
        if ours["image"] not in OWN_IMAGES and not re.fullmatch(case.images, ours["image"], re.DOTALL):
            return "image"
        if case.commands is not None and event.spec and (event.spec.command, event.spec.args) != (None, None):
            words = [*(ours.get("command") or ["<image>"]), *(ours.get("args") or [])]
            is_forged = ours.get("command", [""])[0] == "<image>" or any("$(OTTO_" in word for word in words)
            if is_forged or not re.fullmatch(case.commands, "\0".join(words), re.DOTALL):
                return "command"
        if case.timeout is not None and not 0 < spec.get("activeDeadlineSeconds", 0) <= case.timeout:
            return "timeout"
        for resource, most in (("cpu", case.cpu), ("memory", case.memory)):
            totals = [sum(_limit(c, resource) for c in spec["containers"])]
            totals += [_limit(c, resource) for c in spec.get("initContainers", [])]
            if most is not None and max(totals) > most:
                return resource
        return ""


def _limit(container: Mapping[str, Any], resource: str) -> float:
    limit = container.get("resources", {}).get("limits", {}).get(resource)
    return float(parse_quantity(limit)) if limit is not None else float("inf")


class Recorder(WorldKube):
    """Keeps what it was sent."""

    def __init__(self, world: World, sent: list[Mapping[str, Any]]) -> None:
        super().__init__(world)
        self._sent = sent

    async def create_pod(self, namespace: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """As the twin, and the body is kept."""
        self._sent.append(deepcopy(body))
        return await super().create_pod(namespace, body)


def confine(pod: Mapping[str, Any]) -> None:
    """Raise where a pod is not one of ours, or outside "restricted"."""
    spec, labels = pod["spec"], pod["metadata"]["labels"]
    ours = next(c for c in spec["containers"] if c["name"] == "worker")
    found = restricted_violations(dict(spec))
    found += [f"spec.{name}" for name in ("volumes", "hostNetwork", "serviceAccountName", "nodeName") if name in spec]
    found += [each["name"] for each in ours["env"] if not re.fullmatch(r"OTTO_[A-Z0-9_]+", each["name"])]
    found += ["token"] if spec["automountServiceAccountToken"] or spec["restartPolicy"] != "Never" else []
    found += [name for name, value in labels.items() if not re.fullmatch(r"[-A-Za-z0-9_.]{0,63}", value)]
    found += ["labels"] if labels["managed-by"] != "ottoscaler" or labels["ottoscaler/era"] != "era" else []
    if found:
        raise Beyond(f"{found}: {pod}")


def judge_directly(bench: Bench, limits: Limits, site: Site, entry_id: str, pairs: Pairs) -> Event | BadEntry:
    """Judge one entry as the poller does, build its pods, and compare with the judge here. Raises `Beyond`."""
    verdict = parse_entry(entry_id, pairs, limits)
    event = verdict if isinstance(verdict, Event) else parse_entry(entry_id, pairs, limits._replace(policy=None))
    if isinstance(event, BadEntry):
        return verdict
    for index, attempt in ((1, 1), (event.pod_count, 2)):
        pod = site.build_pod(event, index, attempt)
        confine(pod)
        beyond = bench.check(event, pod)
        if bool(beyond) != isinstance(verdict, BadEntry):
            raise Beyond(f"{bench.case.text!r}: {pairs}: {beyond or 'allowed'}, but {verdict}")
    return verdict


async def send(bench: Bench, entries: list[Pairs]) -> None:
    """Let a whole scaler work on these entries, and judge what its API is sent. Raises `Beyond`."""
    era = await MemoryStream(bench.server, "s1").open_group("0", "otto")
    world = World()
    site, limits, session, stream = bench.open(era, world)
    site = replace(site, now=lambda: bench.server.now() / 1000)
    drain = Drain(1.0, armed=False)
    settings = load_settings({"REDIS_URL": "memory://", "NAMESPACE": "otto"})
    events = {}
    for number, pairs in enumerate(entries):
        entry_id = await stream.add_event([(n.decode(), v.decode()) for n, v in pairs], f"t{number}")
        events[entry_id] = pairs
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        rings = Rings(settings, drain, site, session, "s1", era, limits)
        nursery.start_soon(rings.run, Startup(60, drain, BACKOFF))
        ended: set[str] = set()
        while len(ended) < len(entries):
            await trio.sleep(5)
            for where in ("results", "dlq"):
                ended |= {fields["event_id"] for _, fields in await stream.read_entries(where, "0", 10_000, 0.0)}
        nursery.cancel_scope.cancel(reason="all have ended")
    for pod in bench.sent:
        pod["metadata"]["labels"]["ottoscaler/era"] = "era"
        confine(pod)
        event_id = pod["metadata"]["labels"]["ottoscaler/event-id"]
        event = parse_entry(event_id, events[event_id], limits._replace(policy=None))
        if not isinstance(event, Event) or bench.check(event, pod):
            raise Beyond(f"{bench.case.text!r}: the API was sent {pod}")


def play(seed: int, count: int, *, send_every: int = 10) -> Counter[str]:
    """So many requests, spread over the cases; how they ended, by cause. Raises `Beyond`."""
    ends: Counter[str] = Counter()
    requests = Requests(seed)
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            bench = Bench(case, Path(folder))
            site, limits, _, _ = bench.open(Era("era", "otto", 0), World())
            entries = [requests.next() for _ in range(count // len(CASES))]
            for number, pairs in enumerate(entries):
                verdict = judge_directly(bench, limits, site, f"{1_756_659_802_903 + number}-0", pairs)
                ends[verdict.cause if isinstance(verdict, BadEntry) else "accepted"] += 1
            few = [pairs for pairs in entries[::send_every] if not {b"10", b"10000"} & {value for _, value in pairs}]
            trio.run(send, bench, few, clock=MockClock(autojump_threshold=0))
            ends["pods sent"] += len(bench.sent)
    return ends


def main() -> int:
    """Play one seed, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    print(f"seed {args.seed}", flush=True)
    began = time.monotonic()
    ends = play(args.seed, args.requests)
    for cause, number in ends.most_common():
        print(f"{number:8}  {cause}")
    print(f"no pod beyond its policy or outside restricted ({time.monotonic() - began:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
