"""The scripts on what happened to an event, as they run in the in-memory twin: outcomes, stop marks, the close."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ottoscaler.stream.base import (
    Accepted,
    Candidate,
    Claim,
    Closed,
    Closing,
    Fence,
    LiveEvent,
    Outcome,
    Writing,
    Written,
)
from ottoscaler.stream.entry_id import Id, parse_id
from ottoscaler.stream.memory_pipelines import end_news, tell
from ottoscaler.stream.memory_requests import count, end_request, list_not_created, was_created
from ottoscaler.stream.memory_state import MemoryServer, text_of
from ottoscaler.stream.progress import encode_accepted, indices, is_newer

DAY = 86_400_000  # ms
TRIMMED = 100  # results removed by one close


def record(server: MemoryServer, writing: Writing) -> Written:
    """Record accepted attempts and outcomes of one event."""
    claim = writing.claim
    if not server.is_held(claim.event_id, claim.session, claim.epoch):
        return Written(is_ours=False)
    progress = server.progress[claim.event_id]
    progress.pop("trial", None)
    for accepted in writing.accepted:
        _accept(progress, accepted)
        progress.setdefault("started", str(accepted.at))
    for index, text in writing.troubles:
        progress |= {f"w:{index}": text, "trouble": text}
    standing = tuple(_settle(server, claim.event_id, outcome) for outcome in writing.outcomes)
    if writing.news:
        tell(server, claim.event_id, writing.news)
    return Written(True, standing)


def _accept(progress: dict[str, str], accepted: Accepted) -> None:
    field = f"a:{accepted.index}:{accepted.attempt}"
    if field not in progress:
        progress[field] = encode_accepted(accepted)
        if not any(f"a:{accepted.index}:{earlier}" in progress for earlier in range(1, accepted.attempt)):
            count(progress, "created")


def _settle(server: MemoryServer, event_id: str, outcome: Outcome) -> str:
    progress = server.progress[event_id]
    if stands := progress.get(f"o:{outcome.index}"):
        return stands
    mark = progress.get(f"s:{outcome.index}")
    stopped = _if_stopped(outcome, mark) if mark else ""
    if outcome.retried and not stopped:
        if f"t:{outcome.index}:{outcome.retried}" not in progress:
            count(progress, "retried")
        return progress.setdefault(f"t:{outcome.index}:{outcome.retried}", outcome.outcome)
    text = stopped or outcome.outcome
    progress[f"o:{outcome.index}"] = text
    count(progress, "ended")
    if not was_created(progress, outcome.index):
        count(progress, "not_created")
    if mark:
        progress["stopping"] = str(int(progress.get("stopping", 0)) - 1)
        _tell_asker(server, msgspec.json.decode(mark)["by"], event_id, outcome.index, text)
    return text


def _if_stopped(outcome: Outcome, mark: str) -> str:
    cause = msgspec.json.decode(mark)["cause"]
    return outcome.if_stopped.get(cause) or outcome.if_stopped.get("Stopped", "")


def _tell_asker(server: MemoryServer, asker: str, event_id: str, index: int, text: str) -> None:
    if asking := server.progress.get(asker):
        asking[f"o:{event_id}:{index}"] = text
        if asking["owner"]:
            server.notices[asking["owner"]].add(asker)


def _tell_waiting(server: MemoryServer, closing: Closing) -> None:
    """Who waits for a worker of it to stop is told how all of it ended."""
    progress = server.progress.get(closing.event_id, {})
    for index in indices(progress, "s") - indices(progress, "o"):
        asker = msgspec.json.decode(progress[f"s:{index}"])["by"]
        _tell_asker(server, asker, closing.event_id, index, closing.ended)


def survey(server: MemoryServer, task_id: str) -> list[LiveEvent]:
    """Live events of the work lane, oldest first."""
    found = []
    for event_id in server.live_ids():
        fields = server.progress[event_id]
        if fields["lane"] == "work" and not is_newer(fields) and task_id in ("", fields["task_id"]):
            found.append(
                LiveEvent(
                    event_id=event_id,
                    task_id=fields["task_id"],
                    planned=int(fields["planned"]),
                    epoch=int(fields["epoch"]),
                    owner=fields["owner"],
                    settled=indices(fields, "o") | indices(fields, "s"),
                    accepted=indices(fields, "a"),
                )
            )
    return found


def mark_victims(
    server: MemoryServer,
    claim: Claim,
    wanted: int,
    candidates: Sequence[Candidate],
    *,
    last: bool,
    cause: str,
    passed_count: bool,
) -> tuple[tuple[str, int], ...] | None:
    """Choose and mark victims; the list so far."""
    if not server.is_held(claim.event_id, claim.session, claim.epoch):
        return None
    own = server.progress[claim.event_id]
    victims: list[tuple[str, int]] = [(id_, index) for id_, index in msgspec.json.decode(own.get("victims", "[]"))]
    if own.get("chosen") == "1":
        return tuple(victims)
    before = frozenset(victims)
    for candidate in candidates:
        if len(victims) >= wanted:
            break
        if _mark(server, claim.event_id, candidate, cause):
            victims.append((candidate.event_id, candidate.index))
        elif passed_count and (candidate.event_id, candidate.index) not in before:
            wanted -= 1
    own["victims"] = text_of(victims)
    if last or len(victims) >= wanted:
        own["chosen"] = "1"
    return tuple(victims)


def _mark(server: MemoryServer, asker: str, candidate: Candidate, cause: str) -> bool:
    progress, index = server.progress.get(candidate.event_id), candidate.index
    if progress is None or is_newer(progress) or f"o:{index}" in progress or f"s:{index}" in progress:
        return False
    if progress["epoch"] == "0":
        progress[f"o:{index}"] = candidate.outcome
        count(progress, "ended")
        count(progress, "not_created")
        server.progress[asker][f"o:{candidate.event_id}:{index}"] = candidate.outcome
        if all(f"o:{number}" in progress for number in range(1, int(progress["planned"]) + 1)):
            _wait_for_no_scaling(server, candidate.event_id)
        return True
    progress[f"s:{index}"] = text_of({"by": asker, "cause": cause})
    progress["stopping"] = str(int(progress.get("stopping", 0)) + 1)
    if progress["owner"]:
        server.notices[progress["owner"]].add(candidate.event_id)
    else:
        _wait_for_no_scaling(server, candidate.event_id)
    return True


def _wait_for_no_scaling(server: MemoryServer, event_id: str) -> None:
    due = server.offered[server.progress[event_id]["lane"]].pop(event_id, None)
    if due is not None:
        server.offered["control"][event_id] = due


def close(server: MemoryServer, closing: Closing) -> Closed:
    """End an event: its one entry, acknowledged, progress removed, remembered for a day."""
    event_id, claim, id_ = closing.event_id, closing.claim, parse_id(closing.event_id)
    if ending := server.ending(event_id):
        server.events.acknowledge(server.keys.group, id_)
        return Closed("before", ending.partition(" ")[2])
    if claim is None:
        is_ours = event_id not in server.progress and id_ in server.group().pending
    else:
        is_ours = server.is_held(event_id, claim.session, claim.epoch)
    if not is_ours:
        return Closed("lost")
    if closing.ended:
        _tell_waiting(server, closing)
    progress = server.progress.pop(event_id, {})
    if claim is not None:
        server.held[claim.session].discard(event_id)
    not_created = list_not_created(progress)
    entry_id = _write_ending(server, closing, not_created)
    end_request(server, event_id, progress, not_created, closing.kept)
    end_news(server, event_id)
    server.remember(server.done, event_id, f"{closing.target} {entry_id}", DAY)
    server.events.acknowledge(server.keys.group, id_)
    for fence in closing.fences:
        server.fences[fence.name, fence.uid] = server.now() + fence.due
    if _is_needed_no_more(server, id_):
        server.events.delete(id_)
    server.wake()
    return Closed("here", entry_id)


def _write_ending(server: MemoryServer, closing: Closing, not_created: str) -> str:
    log = server.log(closing.target)
    before = len(log)
    pairs = [(name.encode(), value.encode()) for name, value in closing.pairs]
    if not_created and closing.target == "results":
        pairs.append((b"not_created", not_created.encode()))
    entry_id = log.add(pairs, server.now())
    if closing.target == "results":
        _trim_results(server, before, sum(len(name) + len(value) for name, value in pairs))
    return entry_id


def _trim_results(server: MemoryServer, before: int, added: int) -> None:
    """Drop the oldest results beyond the limits; what others removed since is taken to have been of average size."""
    entries, size = server.results_kept
    size = (size * before // entries if entries else 0) + added
    for _ in range(TRIMMED):
        is_full = len(server.results) > server.retention.results_keep or size > server.retention.results_max_bytes
        if not is_full or len(server.results) == 1:
            break
        id_, pairs = server.results.oldest()
        server.results.delete(id_)
        size -= sum(len(name) + len(value) for name, value in pairs)
    server.results_kept = [len(server.results), size]


def _is_needed_no_more(server: MemoryServer, id_: Id) -> bool:
    trim, groups = server.retention.trim, server.events.groups
    if trim == "off" or (trim == "auto" and len(groups) != 1):
        return False
    return all(group.last >= id_ and id_ not in group.pending for group in groups.values())


def read_ending(server: MemoryServer, event_id: str) -> tuple[str, dict[str, str]] | None:
    """How an event ended; the fields are empty where its entry was trimmed since."""
    ending = server.ending(event_id)
    if ending is None:
        return None
    target, _, entry_id = ending.partition(" ")
    pairs = server.log(target).entries.get(parse_id(entry_id), ())
    return target, {name.decode(): value.decode() for name, value in pairs}


def list_fences(server: MemoryServer) -> list[Fence]:
    """The fences of closed events, by due time."""
    listed = sorted(server.fences.items(), key=lambda item: (item[1], item[0]))
    return [Fence(name, uid, due) for (name, uid), due in listed[:1000]]
