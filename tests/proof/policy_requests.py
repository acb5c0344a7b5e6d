"""Hostile events, seeded: fields, specs, images, commands and metadata that try to get more than they may."""

from __future__ import annotations

import json
import random
from typing import Any

TEAM = "registry.example.com/team/app:1"
IMAGES = (
    "busybox:latest", "gpu:1", TEAM, "evil", "evil:latest", "registry.example.com/team/../evil",
    "registry.example.com.evil.example/team/app", "registry.example.com/team/deep/app", "busybox:latest@sha256:0",
    "BUSYBOX:latest", "docker.io/library/busybox:latest", "registry.example.com/team/", "*", "**", "a b", "", "\u2028",
)  # fmt: skip
WORDS = (
    "make", "test", "-j2", "sh", "-c", "echo a", "echo a; cat /etc/shadow", "ENTRYPOINT", "--shard", "1", "/bin/../sh",
    "$(OTTO_META_X)", "$$(OTTO_META_X)", "$(HOME)", "...", "**", "", "make test", "\n", "\u2028", "nsenter", "make\0",
)  # fmt: skip
COMMANDS: tuple[list[str], ...] = (
    ["make"],
    ["make", "test"],
    ["sh", "-c", "echo a"],
    ["--shard", "1"],
    [],
    ["make", "$(OTTO_META_X)"],
)
TIMES: tuple[Any, ...] = (0, 1, 60, 3600, 3601, 2**31 - 1, 2**31, -1, 1e3, "60", True, None, 10**30)
SMUGGLED = (
    {"securityContext": {"privileged": True}},
    {"hostNetwork": True},
    {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]},
    {"resources": {"limits": {"cpu": "1000"}}},
    {"serviceAccountName": "admin"},
    {"env": [{"name": "LD_PRELOAD", "value": "/x.so"}]},
)
METADATA = (
    "x", "securityContext", "privileged", "OTTO_EVENT_ID", "spec", "image", "command", "labels", "LD_PRELOAD", "x=y",
    "otto", "otto.privileged", "OTTO.SPEC", "ottoscaler/instance", "serviceAccountName", "\n", "",
)  # fmt: skip
TEMPLATES = ("", "", "", "gpu", "beside", "huge", "slow", "root", "../gpu")
COUNTS = ("1", "1", "2", "3", "5", "6", "10", "11", "0", "-1", "10001", "1e3", "")


class Requests:
    """One seed's requests, each a list of pairs for the stream."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def next(self) -> tuple[tuple[bytes, bytes], ...]:
        """One entry, mostly well-formed, and asking for something."""
        choose, chance = self._random.choice, self._random.random
        fields = {"type": "scale_up", "pod_count": choose(COUNTS) if chance() < 0.5 else "1"}
        if chance() < 0.5:
            fields["template"] = choose(TEMPLATES)
        if chance() < 0.3:
            fields["task_id"] = choose(METADATA) + choose(("", "/", "é", "x" * 80))
        if chance() < 0.8:
            fields["otto.spec"] = self._spec()
        if chance() < 0.3:
            fields[choose(METADATA)] = choose(WORDS)
        if chance() < 0.1:
            fields[choose(("otto.parent", "otto.request_id", "otto.remain"))] = choose(("1-0", "x", "", "0"))
        return tuple((name.encode(), value.encode()) for name, value in fields.items())

    def _spec(self) -> str:
        choose, chance = self._random.choice, self._random.random
        spec: dict[str, Any] = {}
        if chance() < 0.5:
            spec["image"] = self._spoil(choose(IMAGES))
        if chance() < 0.4:
            spec["command"] = self._words()
        if chance() < 0.3:
            spec["args"] = self._words()
        if chance() < 0.3:
            spec["timeout_seconds"] = choose(TIMES)
        if chance() < 0.2:
            spec["retry"] = choose(({"max_attempts": 3}, {"max_attempts": 10**9}, {"retry_delay_seconds": 0}, {}))
        if chance() < 0.05:
            spec |= choose(SMUGGLED)
        text = json.dumps(spec)
        return self._spoil(text) if chance() < 0.05 else text

    def _words(self) -> Any:
        if self._random.random() < 0.4:
            return self._random.choice(COMMANDS)
        if self._random.random() < 0.05:
            return self._random.choice(("make test", 7, {"a": 1}, [["make"]], [None]))
        return [self._random.choice(WORDS) for _ in range(self._random.randrange(4))]

    def _spoil(self, text: str) -> str:
        """Now and then a character more or less."""
        place = self._random.randrange(len(text) + 1)
        if self._random.random() < 0.1:
            return text[:place] + self._random.choice('/*:@ .a\n"\\{}[]$(,') + text[place:]
        return text[:place] + text[place + 1 :] if self._random.random() < 0.1 else text
