"""What became of every pod, as the world saw it: the measure for what results say."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import trio

from tests.spine.world import World


@dataclass
class Life:
    """One pod: when it was made, ran, ended, was to be deleted and was gone (virtual s, None = never), and its code."""

    uid: str
    created: float
    started: float | None = None
    ended: float | None = None
    deleted: float | None = None
    gone: float | None = None
    code: int | None = None


class Truth:
    """The lives of all pods, by name, in their order."""

    def __init__(self, world: World) -> None:
        self.lives: defaultdict[str, list[Life]] = defaultdict(list)
        self.strangers: set[str] = set()
        """Names that somebody else's pods have had."""
        self._stranger_uids: set[str] = set()
        self._publish = world._publish
        world._publish = self._note  # type: ignore[method-assign]  # the one way of every change

    def _note(self, kind: str, pod: dict[str, Any]) -> None:
        now, metadata = trio.current_time(), pod["metadata"]
        lives = self.lives[metadata["name"]]
        if "ottoscaler/event-id" not in metadata["labels"] and not lives:
            self.strangers.add(metadata["name"])
            self._stranger_uids.add(metadata["uid"])
        if not lives or lives[-1].uid != metadata["uid"]:
            lives.append(Life(metadata["uid"], now))
        life = lives[-1]
        if "deletionTimestamp" in metadata and life.deleted is None:
            life.deleted = now
        for container in pod["status"].get("containerStatuses", []):
            state = container["state"]
            if "running" in state and life.started is None:
                life.started = now
            if "terminated" in state and life.ended is None:
                life.ended, life.code = now, state["terminated"]["exitCode"]
        life.gone = now if kind == "DELETED" else None
        self._publish(kind, pod)

    def ours(self, name: str) -> list[Life]:
        """Of the pods that we made under this name."""
        return [life for life in self.lives.get(name, ()) if life.uid not in self._stranger_uids]
