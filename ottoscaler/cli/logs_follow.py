"""`ottoscaler logs --follow`: every worker of a target to its end, those that come later, too.

Whether more will come only Redis knows: a worker may wait for a slot or for its next attempt while no pod is there. So
the view ends when the event has its result or dead letter and the logs of its pods are over. Where Redis cannot say,
it ends when no worker is left and none came for `QUIET_SECONDS`.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from ottoscaler.cli import reach
from ottoscaler.cli.following import follow_records, list_records, missing
from ottoscaler.cli.letters import is_id
from ottoscaler.cli.logs import LogApi, Page, Say, event_of, is_meant, may_come, no_pod, reader_of
from ottoscaler.errors import FixYourCall, NotFound, OttoscalerError, Refused, SettingsError, TryAgain
from ottoscaler.fleet import Fleet
from ottoscaler.logs.following import RETRY, Following, ReadLog
from ottoscaler.logs.mark import Entry, Mark
from ottoscaler.pods import PodRecord

if TYPE_CHECKING:
    from ottoscaler.settings import Settings

T = TypeVar("T")
Ask = Callable[[str], Awaitable[str]]
"""From the id of an event to `Standing.where`; raises `OttoscalerError` where Redis does not say."""
LOOK_SECONDS = 0.25
QUIET_SECONDS = 30.0
NOT_ALLOWED = (401, 403)
UNTIL_QUIET = f"this ends when no worker is left and none came for {QUIET_SECONDS:g} s"


@asynccontextmanager
async def open_asking(settings: "Settings") -> AsyncIterator[Ask]:
    """A way to ask the Redis of these settings how an event stands; nothing is connected before the first question."""
    try:
        opening = reach.open_stream_of(settings)
    except SettingsError as error:
        problems = error.problems

        async def refuse(event_id: str) -> str:
            raise SettingsError(problems)

        yield refuse
        return
    async with opening as stream:

        async def ask(event_id: str) -> str:
            return (await stream.look([event_id]))[event_id].where

        yield ask


async def follow_logs(api: LogApi, namespace: str, target: str, page: Page, ask: Ask, say: Say) -> None:
    """Follow every worker of the target to its end, until no more will come. `say` takes sentences for people.

    FixYourCall where no worker is there and none will come, OttoscalerError where it was waited for and none came.
    """
    await View(api, namespace, target, page, ask, say).run()


class View:
    """The workers of one target, each followed as soon as its pod is there."""

    def __init__(self, api: LogApi, namespace: str, target: str, page: Page, ask: Ask, say: Say) -> None:
        self._api = api
        self._namespace = namespace
        self._target = target
        self._page = page
        self._ask = ask
        self._say = say
        self._said: set[str] = set()
        self._event_id = event_of(target)
        self._fleet = Fleet()
        self._known: dict[str, PodRecord] = {}
        self._open: set[str] = set()
        self._listed = trio.Event()
        self._has_waited = False
        """It was said that no worker is there yet."""
        self._is_complete = False
        """The event has ended, and its pods were listed after that."""
        self._quiet_from = trio.current_time()
        """Since when neither a worker was there nor Redis has said that one may come."""

    async def run(self) -> None:
        """Show what comes, to the end."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(follow_records, self._api, self._namespace, self._tell_all, self._tell)
            await self._listed.wait()
            while await self._may_more_come() or self._open:  # noqa: ASYNC110  Redis has to be asked
                await trio.sleep(LOOK_SECONDS)
            self._nursery.cancel_scope.cancel(reason="every worker has ended")
        if not self._known:
            raise OttoscalerError(f"no pod of {self._target!r} came")

    # -- the pods

    def _tell_all(self, records: Sequence[PodRecord]) -> None:
        for record in records:
            self._tell(record)
        self._listed.set()

    def _tell(self, record: PodRecord) -> None:
        if not is_meant(record, self._target):
            return
        self._fleet.apply("DELETED" if record.gone else "MODIFIED", record)
        if record.name not in self._known and not record.gone:
            self._open.add(record.name)
            self._nursery.start_soon(self._follow, record.name)
        self._known[record.name] = record

    async def _tell_newest(self) -> None:
        """List once more: the watch may be behind what Redis says."""
        records, _ = await insist(partial(list_records, self._api, self._namespace), self._say)
        self._tell_all([*missing(self._known.values(), records), *records])

    async def _follow(self, name: str) -> None:
        await _follow_one(self._api, self._namespace, name, self._fleet, self._page, self._say)
        self._open.discard(name)
        self._quiet_from = trio.current_time()

    # -- whether more will come

    async def _may_more_come(self) -> bool:
        if self._is_complete or (self._known and not is_id(self._target)):
            return False  # of a worker that is named no other comes
        where = await self._look()
        if where == "ended":
            await self._tell_newest()
            self._is_complete = True
        if not self._known:
            self._refuse_or_wait(where)
        if self._is_complete:
            return False
        if where in ("waiting", "live"):
            self._quiet_from = trio.current_time()
        return bool(self._open) or trio.current_time() < self._quiet_from + QUIET_SECONDS

    def _refuse_or_wait(self, where: str) -> None:
        if where == "nowhere":
            raise no_pod(self._target, ", and Redis knows no such event")
        if not may_come(self._target):
            raise no_pod(self._target)
        if where == "ended" and not self._has_waited:
            raise no_pod(self._target, ", and the event has ended")
        if not self._has_waited:
            self._say(f"there is no pod of {self._target!r} yet in the namespace {self._namespace}: waiting for one")
        self._has_waited = True

    async def _look(self) -> str:
        """How the event stands; empty, and said, where that is not known."""
        try:
            where = await self._ask(self._event_id) if self._event_id else ""
        except OttoscalerError as error:
            where = ""
            self._say_once(f"{error}; without Redis {UNTIL_QUIET}")
        if not self._event_id and may_come(self._target):
            self._say_once(f"the name {self._target!r} does not tell its event: {UNTIL_QUIET}")
        if where == "nowhere" and self._known:
            self._say_once(f"Redis knows no event {self._event_id!r} and cannot say when it ends: {UNTIL_QUIET}")
        return where

    def _say_once(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._say(sentence)


async def _follow_one(api: LogApi, namespace: str, name: str, fleet: Fleet, page: Page, say: Say) -> None:
    async def deliver(entries: Sequence[Entry]) -> None:
        page.show(name, entries)

    def say_of(sentence: str) -> None:
        say(f"{name}: {sentence}")

    with fleet.follow(name) as pod:
        try:
            read = await insist(partial(reader_of, api, namespace, name), say_of)
        except NotFound:
            return
        await Following(name, partial(_read_or_end, read), pod, Mark(), deliver).run()


async def _read_or_end(read: ReadLog, **options: Any) -> AsyncGenerator[bytes, None]:
    """A log in pieces; one that may not be read ends the view, for no waiting makes it readable."""
    async with aclosing(read(**options)) as pieces:
        try:
            async for piece in pieces:
                yield piece
        except Refused as error:
            if error.status in NOT_ALLOWED:
                raise FixYourCall(str(error)) from error
            raise


async def insist(call: Callable[[], Awaitable[T]], say: Say) -> T:
    """What the call brings, tried again for ever while what stands in the way passes; says so once."""
    has_said = False
    for delay in RETRY.delays():
        try:
            return await call()
        except TryAgain as error:
            if not has_said:
                say(f"{error}; it is tried again")
            has_said = True
        await trio.sleep(delay)
    raise AssertionError("unreachable")
