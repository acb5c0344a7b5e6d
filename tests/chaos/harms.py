"""The harm that heavy chaos does: to processes, to Redis, to the API, to pods. One function each."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

from tests.chaos.lines import is_read, start_handler
from tests.chaos.script import Harm
from tests.chaos.stage import NAMESPACE, PREFIX, Life, Stage

if TYPE_CHECKING:
    from tests.process.bench import Cluster

PODS = f"/namespaces/{NAMESPACE}/pods"
GIVE_UP = 16.0
"""Seconds after which a client has left a create that was never answered."""

Act = Callable[[Stage, Harm], Awaitable[bool | None]]


async def do_harm(stage: Stage, harm: Harm) -> None:
    """Do it at its time, and count it unless there was nothing to harm."""
    await trio.sleep(harm.at)
    if await ACTS[harm.name](stage, harm) is not False:
        stage.run.harm[harm.name] += 1


def _choose(stage: Stage, harm: Harm) -> tuple[int, Life]:
    place = int(harm.whom * len(stage.lives))
    return place, stage.lives[place]


# -- processes


async def _kill(stage: Stage, harm: Harm) -> None:
    _choose(stage, harm)[1].kill()


async def _kill_in_writes(stage: Stage, harm: Harm) -> None:
    """While the API is slow to answer creates or deletes; it carries them out all the same."""
    verb, slow = "create" if harm.whom < 0.7 else "delete", 0.6
    number = await stage.cluster.fault(kind="latency", verb=verb, path=PODS, seconds=slow, times=1000)
    with trio.move_on_after(2.0), suppress(AssertionError):
        await stage.cluster.wait_suffered(number)
    for life in list(stage.lives.values()) if harm.seconds > 1 else [_choose(stage, harm)[1]]:
        life.kill()
    await stage.cluster.mend(number)
    stage.run.late_until = max(stage.run.late_until, time.time() + slow)


async def _freeze(stage: Stage, harm: Harm) -> None:
    _, life = _choose(stage, harm)
    async with life.lock:
        if not life.is_over and not life.asked_at:
            life.process.send_signal(19)
            await trio.sleep(harm.seconds)
            life.process.send_signal(18)


async def _roll_out(stage: Stage, harm: Harm) -> None:
    """A new one starts, and the old one is asked to end."""
    place, life = _choose(stage, harm)
    stage.start(place)
    await life.terminate()


# -- Redis


async def _kill_redis(stage: Stage, harm: Harm) -> None:
    async with stage.redis:
        stage.valkey.kill()
        await trio.sleep(harm.seconds)
        stage.valkey.start()


async def _freeze_redis(stage: Stage, harm: Harm) -> None:
    async with stage.redis:
        stage.valkey.freeze()
        await trio.sleep(harm.seconds)
        stage.valkey.thaw()


async def _empty_redis(stage: Stage, harm: Harm) -> None:
    """What was added before is exempt; its pods are swept by hand at the end."""
    async with stage.redis:
        era = stage.command("HGET", f"{PREFIX}:era", "id")
        stage.command("FLUSHALL")
        stage.run.exempt |= set(stage.run.sent)
        stage.run.eras += [era.decode()] if era else []


TRIM = """
local groups, last = redis.pcall('XINFO', 'GROUPS', KEYS[1]), '0-0'
for _, group in ipairs(groups.err and {} or groups) do
  for at = 1, #group, 2 do
    if group[at] == 'last-delivered-id' then last = group[at + 1] end
  end
end
redis.call('XTRIM', KEYS[1], 'MAXLEN', ARGV[1])
return last
"""


async def _trim(stage: Stage, harm: Harm) -> None:
    """What was trimmed before anybody read it cannot be known: it is exempt. What was delivered is not."""
    async with stage.redis:
        last = stage.command("EVAL", TRIM, 1, f"{PREFIX}:events", int(harm.whom * 3))
        kept = {entry_id for entry_id, _ in stage.command("XRANGE", f"{PREFIX}:events", "-", "+")}
    gone = {event_id for event_id in stage.run.sent if event_id.encode() not in kept}
    stage.run.exempt |= {event_id for event_id in gone if _order(event_id) > _order(last.decode())}


def _order(entry_id: str) -> tuple[int, int]:
    at, _, number = entry_id.partition("-")
    return int(at), int(number)


# -- the API


def _fault(kind: str, verbs: tuple[str, ...], **more: Any) -> Act:
    """Some of the requests of one verb suffer for a while."""

    async def act(stage: Stage, harm: Harm) -> None:
        verb = verbs[int(harm.whom * len(verbs))]
        lasts = {"lasts": max(harm.seconds, 0.5)} | more
        await stage.cluster.fault(kind=kind, verb=verb, path=PODS, probability=0.6, **lasts)
        await trio.sleep(harm.seconds)

    return act


async def _slow(stage: Stage, harm: Harm) -> None:
    await stage.cluster.fault(kind="latency", path=PODS, seconds=harm.seconds / 4, lasts=2.0)
    await trio.sleep(2.0)


async def _refuse(stage: Stage, harm: Harm) -> None:
    status = (500, 502, 503, 504)[int(harm.whom * 4)]
    await stage.cluster.fault(kind="reject", path=PODS, status=status, probability=0.6, lasts=max(harm.seconds, 0.5))
    await trio.sleep(harm.seconds)


async def _cut(cluster: Cluster, path: str = PODS) -> None:
    """Cut what is open now: an API server that cannot reach the kubelet begins no answer."""
    await cluster.fault(kind="watch_cut", path=path, lasts=0.001)


async def _cut_watches(stage: Stage, harm: Harm) -> None:
    await _cut(stage.cluster)


async def _silence_watches(stage: Stage, harm: Harm) -> None:
    """They say nothing for a while, then they break off."""
    number = await stage.cluster.fault(kind="watch_silent", verb="watch", path=PODS)
    await trio.sleep(harm.seconds)
    await stage.cluster.mend(number)
    await _cut(stage.cluster)


async def _expire_watches(stage: Stage, harm: Harm) -> None:
    await stage.cluster.client.post("/faults/compact")
    await _cut(stage.cluster)


async def _create_late(stage: Stage, harm: Harm) -> None:
    """The next creates get no answer and are carried out when their client has left: because it was killed, or by
    itself.
    """
    times, wait = 1 + int(harm.whom * 3), harm.seconds / 2
    number = await stage.cluster.fault(kind="late", verb="create", path=PODS, seconds=wait, times=times)
    await trio.sleep(1.5)
    await stage.cluster.mend(number)
    if harm.whom < 0.8:
        for life in list(stage.lives.values()):
            life.kill()
    stage.run.late_until = max(stage.run.late_until, time.time() + wait + (0.5 if harm.whom < 0.8 else GIVE_UP))


# -- logs


async def _kill_handler(stage: Stage, harm: Harm) -> None:
    async with stage.handler_lock:
        assert stage.handler is not None
        stage.handler.kill()
        stage.handler.wait()
        await trio.sleep(harm.seconds)
        stage.handler = start_handler(stage.handler_port, stage.run.folder)


async def _freeze_handler(stage: Stage, harm: Harm) -> None:
    async with stage.handler_lock:
        assert stage.handler is not None
        stage.handler.send_signal(19)
        await trio.sleep(harm.seconds)
        stage.handler.send_signal(18)


async def _cut_logs(stage: Stage, harm: Harm) -> None:
    """All followed logs end, and for a while none can be opened."""
    await stage.cluster.fault(kind="reset_before", verb="get", path="/log$", lasts=harm.seconds)
    await _cut(stage.cluster, "/log$")


async def _rotate_log(stage: Stage, harm: Harm) -> bool:
    """A new file is begun for a log that is being read: what happens before is beyond what is promised, and takes a
    kubelet 10 MiB in two seconds.
    """
    pod = await _choose_pod(stage, harm)
    if pod is None or not is_read(stage.run.folder, name := pod["metadata"]["name"]):
        return False
    body = {"namespace": NAMESPACE, "name": name}
    return (await stage.cluster.client.post("/faults/harm/rotate-log", json=body)).status_code == 200


# -- pods


def _to_pod(what: str, **more: Any) -> Act:
    async def act(stage: Stage, harm: Harm) -> bool:
        pod = await _choose_pod(stage, harm)
        if pod is None:
            return False
        name, (event, index, attempt) = pod["metadata"]["name"], _identity(pod)
        stage.run.harmed[event, index] += 1
        stage.run.unseen[event, index, attempt] += not _is_accepted(stage, event, index, attempt)
        body = {"namespace": NAMESPACE, "name": name, **more}
        if what == "strip-labels":
            stage.run.stripped.add(name)
        path = "/faults/strip-labels" if what == "strip-labels" else f"/faults/harm/{what}"
        return (await stage.cluster.client.post(path, json=body)).status_code == 200

    return act


def _identity(pod: dict[str, Any]) -> tuple[str, int, int]:
    labels = pod["metadata"]["labels"]
    return labels["ottoscaler/event-id"], int(labels["ottoscaler/index"]), int(labels["ottoscaler/attempt"])


def _is_accepted(stage: Stage, event: str, index: int, attempt: int) -> bool:
    """Whether it stands in the progress that this pod exists; False where Redis is away."""
    if stage.redis.locked():
        return False
    return bool(stage.command("HEXISTS", f"{PREFIX}:progress:{event}", f"a:{index}:{attempt}"))


async def _delete(stage: Stage, harm: Harm) -> bool | None:
    return await _to_pod("delete", **({"grace": 0} if harm.seconds < 1 else {}))(stage, harm)


async def _choose_pod(stage: Stage, harm: Harm) -> dict[str, Any] | None:
    """A pod that has not ended; one is waited for a little."""
    with trio.move_on_after(2.0):
        while True:
            alive = [pod for pod in await stage.pods() if pod["status"]["phase"] in ("Pending", "Running")]
            alive = [pod for pod in alive if "ottoscaler/event-id" in pod["metadata"].get("labels", {})]
            if alive:
                return sorted(alive, key=lambda pod: str(pod["metadata"]["name"]))[int(harm.whom * len(alive))]
            await trio.sleep(0.1)
    return None


ACTS: dict[str, Act] = {
    "kill -9": _kill,
    "kill -9 in writes": _kill_in_writes,
    "SIGSTOP": _freeze,
    "rollout": _roll_out,
    "Redis kill -9": _kill_redis,
    "Redis freeze": _freeze_redis,
    "Redis emptied": _empty_redis,
    "stream trimmed": _trim,
    "API latency": _slow,
    "API 429": _fault("reject", ("create", "delete", "list"), status=429, retry_after=1),
    "API 5xx": _refuse,
    "reset before": _fault("reset_before", ("create", "delete", "list", "get")),
    "reset after": _fault("reset_after", ("create", "delete", "create", "deletecollection")),
    "watch cut": _cut_watches,
    "watch silent": _silence_watches,
    "watch expired": _expire_watches,
    "late create": _create_late,
    "labels stripped": _to_pod("strip-labels"),
    "eviction": _to_pod("evict"),
    "pod deleted": _delete,
    "pod killed": _to_pod("kill"),
    "handler kill -9": _kill_handler,
    "handler SIGSTOP": _freeze_handler,
    "logs cut": _cut_logs,
    "log rotated": _rotate_log,
}
