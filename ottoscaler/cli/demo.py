"""`ottoscaler demo`: three events become pods, results and nothing left, on this machine alone, in some ten seconds."""

import argparse
import json
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import trio

    from ottoscaler.cli.demo_view import View
    from ottoscaler.cli.playground import Playground
    from ottoscaler.cli.programs import Impatience
    from ottoscaler.kube.client import Kube
    from ottoscaler.pods import PodRecord
    from ottoscaler.stream.base import Stream

HANDLES_SIGNALS = True
LIMIT_SECONDS = 55.0
WORK = 'sleep "$OTTO_META_SECONDS"; if [ "$OTTO_WORKER_INDEX" = "$OTTO_META_FAILS" ]; then exit 3; fi'
SETTINGS = {
    "WORKER_COMMAND": '["sh", "-c"]',
    "WORKER_ARGS": json.dumps([WORK]),
    "DRAIN_SECONDS": "5",
    "LOG_FORMAT": "json",
}


class Sent(NamedTuple):
    """One event of the demo: its fields, and the counts (succeeded, failed, terminated) that its result must have."""

    title: str
    fields: Sequence[tuple[str, str]]
    expected: tuple[int, int, int]


def _up(pods: int, task: str, seconds: int, fails: int = 0) -> Sequence[tuple[str, str]]:
    fields = [("type", "scale_up"), ("pod_count", str(pods)), ("task_id", task), ("seconds", str(seconds))]
    return [*fields, ("fails", str(fails))]


THREE = Sent("3 workers of 5 s", _up(3, "nightly", 5), (1, 0, 2))
FIVE = Sent("5 workers of 2 s, of which number 4 fails", _up(5, "tests", 2, fails=4), (4, 1, 0))
DOWN = Sent(
    "stop 2 of the running workers of task nightly",
    [("type", "scale_down"), ("pod_count", "2"), ("task_id", "nightly")],
    (0, 0, 2),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add no argument."""


def run(args: argparse.Namespace) -> int:
    """Show it all; 0 when every result was as expected and nothing was left behind."""
    import trio

    from ottoscaler.cli.programs import Impatience
    from ottoscaler.cli.running import run_until_signal

    impatience = Impatience("serve")
    return trio.run(run_until_signal, partial(_demo, impatience), impatience.insist)


async def _demo(impatience: "Impatience", nursery: "trio.Nursery") -> int:
    import trio

    from ottoscaler.cli.demo_view import open_view
    from ottoscaler.cli.playground import open_playground

    with trio.move_on_after(LIMIT_SECONDS), open_view() as view:
        view.say("starting a real Valkey, a local cluster and the scaler")
        async with open_playground(nursery, SETTINGS, impatience) as playground:
            processes = _descendants()
            try:
                problems = await _show(playground, view)
            finally:
                if trio.current_effective_deadline() == -inf:  # by Ctrl-C, or after the limit
                    view.say("ending the scaler, the cluster and Valkey")
                    playground.serve.process.send_signal(signal.SIGINT)  # and a SIGTERM to come: two end its drain
                processes += _descendants()
                log_lines = list(playground.serve.tail)
        problems += _left_behind(playground, processes)
        for problem in problems:
            view.say(f"not as expected: {problem}")
        if problems:
            view.say("the last lines of the scaler:\n" + "\n".join(log_lines))
        else:
            view.say("nothing is left: no pod, no process, no file")
        return int(bool(problems))
    print(f"the demo did not end within {LIMIT_SECONDS:g} s")
    return 1


async def _show(playground: "Playground", view: "View") -> list[str]:
    """The story, from the first event to the end of the scaler; what was not as expected."""
    import trio

    from ottoscaler.cli.following import follow_records
    from ottoscaler.cli.reach import open_kube_of, open_stream_of
    from ottoscaler.settings import load_settings

    settings = load_settings(playground.environ)
    running: set[str] = set()
    all_run = trio.Event()

    def tell(record: "PodRecord") -> None:
        view.pod(record)
        if record.phase == "Running" and record.task_id == "nightly":
            running.add(record.name)
            if len(running) == 3:
                all_run.set()

    def tell_all(records: list["PodRecord"]) -> None:
        for record in records:
            tell(record)

    async with open_stream_of(settings) as stream, open_kube_of(settings) as kube, trio.open_nursery() as nursery:
        nursery.start_soon(follow_records, kube, settings.namespace, tell_all, tell)
        async with trio.open_nursery() as guard:
            guard.start_soon(playground.fail_when_ended)
            problems = await _send_all(stream, view, all_run)
            guard.cancel_scope.cancel(reason="every result is there")
        view.say("SIGTERM to the scaler: it takes nothing new, finishes what runs, and ends")
        code = await playground.serve.stop(10)
        view.say(f"the scaler ended with exit code {code}")
        left = await _pods_left(kube, settings.namespace)
        await trio.sleep(0.1)  # the last deletions are on their way to the table
        nursery.cancel_scope.cancel(reason="all was shown")
    problems += [f"pod {record.name} is still there" for record in left]
    return problems + ([f"the scaler ended with {code}"] if code else [])


async def _send_all(stream: "Stream", view: "View", all_run: "trio.Event") -> list[str]:
    """Send the three events, the last when the first one's workers run, and wait for every result."""
    import trio

    sent = {await _send(stream, view, event): event for event in (THREE, FIVE)}
    await all_run.wait()
    await trio.sleep(1)
    sent[await _send(stream, view, DOWN)] = DOWN
    problems: list[str] = []
    after = "0"
    while sent:
        for entry_id, fields in await stream.read_entries("results", after, 10, 1):
            after = entry_id
            problems += _show_result(view, sent.pop(fields["event_id"]), fields)
    return problems


async def _send(stream: "Stream", view: "View", sent: Sent) -> str:
    from ottoscaler.cli.send import add_event

    fields = " ".join(f"{name} {value}" for name, value in sent.fields)
    view.say(f"event: {sent.title}")
    view.say(f"  XADD otto:scale:events * {fields}")
    return await add_event(stream, sent.fields)


def _show_result(view: "View", event: Sent, fields: Mapping[str, str]) -> list[str]:
    """Tell a result; what is not as expected in it."""
    from ottoscaler.cli.results import decoded, summary

    result = decoded(fields)
    view.say(f"result of «{event.title}»: {summary(result)}")
    for worker in result["workers"]:
        if worker["outcome"] == "failed":
            view.say(f"  {worker['name']} failed, {worker['cause']}: {worker['reason']}")
    counts = (result["succeeded"], result["failed"], result["terminated"])
    return [] if counts == event.expected else [f"«{event.title}»: expected {event.expected}, got {counts}"]


async def _pods_left(kube: "Kube", namespace: str) -> list["PodRecord"]:
    """The pods that stay; those whose deletion the API has accepted get a moment to go."""
    import trio

    from ottoscaler.cli.following import list_records

    for _ in range(50):
        left, _ = await list_records(kube, namespace)
        if not left:
            break
        await trio.sleep(0.1)
    return left


def _descendants() -> list[Any]:
    """All processes below this one: the programs, and what the local cluster runs as pods."""
    import psutil

    return psutil.Process().children(recursive=True)


def _left_behind(playground: "Playground", processes: list[Any]) -> list[str]:
    """What of the playground is still there, though it has been closed."""
    import psutil

    _, alive = psutil.wait_procs(processes, timeout=1)
    left = [f"process {process.pid} is still there" for process in alive]
    return left + ([f"folder {playground.folder} is still there"] if playground.folder.exists() else [])
