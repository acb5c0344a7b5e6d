"""The client over a scripted network: what it sends, and what every answer and failure becomes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from ottoscaler.errors import (
    Ambiguous,
    Answered,
    Conflict,
    Expired,
    NotFound,
    OttoscalerError,
    Refused,
    Unavailable,
    WritesSuspended,
)
from ottoscaler.fleet import PodRecord
from ottoscaler.kube.access import Access
from ottoscaler.kube.client import Kube, OnRequest, open_kube
from ottoscaler.kube.credentials import TokenFile
from tests.kube.scripted_transport import Answer, Broken, ScriptedTransport

RECORDINGS = Path(__file__).parent.parent / "recordings"
REFUSALS: list[dict[str, Any]] = json.loads((RECORDINGS / "kube-refusals.json").read_text())
ADDRESS = "https://10.0.0.1:6443"
STATUS = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}


def anything_goes() -> None:
    """A lease that never runs out."""


@asynccontextmanager
async def client(
    *script: Answer | Broken,
    may_write: Callable[[], None] = anything_goes,
    access: Access | None = None,
    on_request: OnRequest | None = None,
) -> AsyncIterator[tuple[Kube, ScriptedTransport]]:
    """A client on a scripted network."""
    transport = ScriptedTransport(*script)
    access = access or Access(server=ADDRESS)
    async with open_kube(access, may_write=may_write, transport=transport, on_request=on_request) as kube:
        yield kube, transport


def create(kube: Kube) -> Awaitable[Any]:
    """A write."""
    return kube.create_pod("otto", {"metadata": {"name": "p"}})


def get(kube: Kube) -> Awaitable[Any]:
    """A read."""
    return kube.get_pod("otto", "p")


def delete(kube: Kube) -> Awaitable[Any]:
    """Another write."""
    return kube.delete_pod("otto", "p")


async def error_of(call: Callable[[Kube], Awaitable[Any]], *script: Answer | Broken) -> OttoscalerError:
    """What a call raises on this script."""
    async with client(*script) as (kube, _):
        with pytest.raises(OttoscalerError) as caught:
            await call(kube)
    return caught.value


async def test_each_call_sends_one_request() -> None:
    """Method, path and parameters are those of the Kubernetes API; creates carry a server-side timeout."""
    async with client(*[Answer(200, {"items": [], "metadata": {"resourceVersion": "7"}}) for _ in range(8)]) as (
        kube,
        net,
    ):
        await create(kube)
        await kube.delete_pod("otto", "p")
        await kube.delete_pod("otto", "p", uid="u", resource_version=5, grace_seconds=0)
        await kube.delete_finished_pods("otto", "a=b,c=d", limit=50)
        await get(kube)
        assert await kube.list_pods("otto", "a=b") == ([], 7)
        await kube.review_access("otto", "create", "pods")
        await kube.version()
    assert net.urls() == [
        "POST /api/v1/namespaces/otto/pods?timeout=10s",
        "DELETE /api/v1/namespaces/otto/pods/p",
        "DELETE /api/v1/namespaces/otto/pods/p",
        "DELETE /api/v1/namespaces/otto/pods?labelSelector=a%3Db%2Cc%3Dd"
        "&fieldSelector=status.phase%21%3DPending%2Cstatus.phase%21%3DRunning&limit=50",
        "GET /api/v1/namespaces/otto/pods/p",
        "GET /api/v1/namespaces/otto/pods?labelSelector=a%3Db&limit=500",
        "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        "GET /version",
    ]
    assert net.asked[1].content == b""
    assert json.loads(net.asked[2].content) == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": "u", "resourceVersion": "5"},
        "gracePeriodSeconds": 0,
    }
    assert json.loads(net.asked[0].content) == {"metadata": {"name": "p"}}
    assert net.asked[0].headers["content-type"] == "application/json"


RECORDED = {
    400: Refused, 401: Unavailable, 403: Refused, 404: NotFound, 409: Conflict, 410: Expired,
    415: Refused, 422: Refused, 500: Unavailable, 504: Unavailable,
}  # fmt: skip


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal["note"])
async def test_every_recorded_refusal_becomes_its_error(refusal: dict[str, Any]) -> None:
    """What a real server refused becomes the error for its code, with the server's own words in it."""
    answer = Answer(refusal["status"], refusal["body"], refusal["headers"])
    call = create if refusal["method"] == "POST" else get
    error = await error_of(call, answer, answer)
    assert isinstance(error, RECORDED[refusal["status"]])
    assert refusal["body"]["message"] in str(error)
    assert not isinstance(error, Ambiguous)
    if isinstance(error, Answered):
        status = refusal["body"]
        assert (error.status, error.message) == (status["code"], status["message"])
        assert (error.reason, error.details) == (status.get("reason", ""), status.get("details", {}))
        assert error.target == "pod otto/p"


TOO_LATE = {**STATUS, "reason": "Timeout", "message": "request did not complete", "code": 504}
ETCD = {**STATUS, "reason": "InternalError", "message": "etcdserver: request timed out", "code": 500}
WEBHOOK = {**STATUS, "message": 'Internal error occurred: failed calling webhook "w": refused', "code": 500}
QUOTA = {**STATUS, "reason": "Conflict", "message": "the object has been modified", "code": 409}


@pytest.mark.parametrize(
    ("answer", "of_a_write", "retry_after"),
    [
        (Answer(429, {**STATUS, "code": 429}, {"Retry-After": "3"}), Unavailable, 3.0),
        (Answer(429, b"slow down", {"retry-after": "soon"}), Unavailable, None),
        (Answer(503, {**STATUS, "code": 503, "details": {"retryAfterSeconds": 2}}), Unavailable, 2.0),
        (Answer(503, b"<html>upstream connect error"), Ambiguous, None),
        (Answer(502, b"bad gateway"), Ambiguous, None),
        (Answer(504, TOO_LATE), Ambiguous, None),
        (Answer(500, ETCD), Ambiguous, None),
        (Answer(500, WEBHOOK), Unavailable, None),
        (Answer(409, QUOTA), Unavailable, None),
        (Answer(201, b"<html>login</html>"), Ambiguous, None),
        (Answer(201, b"[]"), Ambiguous, None),
    ],
    ids=lambda value: f"{value.code} {value.body}"[:40] if isinstance(value, Answer) else "",
)
async def test_a_passing_answer_says_whether_a_create_may_have_been_carried_out(
    answer: Answer, of_a_write: type[Unavailable], retry_after: float | None
) -> None:
    """Only Kubernetes' own word that nothing was done makes a create plainly unavailable; the rest is ambiguous."""
    error = await error_of(create, answer)
    assert type(error) is of_a_write
    assert isinstance(error, Unavailable)
    assert (error.retry_after, error.address) == (retry_after, ADDRESS)
    assert ADDRESS in str(error)


async def test_a_server_error_to_a_read_is_plainly_unavailable() -> None:
    """A read changes nothing, so nothing about it is ambiguous."""
    error = await error_of(get, Answer(504, TOO_LATE))
    assert type(error) is Unavailable
    assert str(error) == f"{ADDRESS} answered 504 to get of pod otto/p: request did not complete"


def refused_connection() -> httpx.ConnectError:
    """As httpcore on Trio raises it: the reason is three causes deep."""
    error = httpx.ConnectError("all attempts to connect to 10.0.0.1:6443 failed")
    error.__cause__ = OSError("all attempts to connect failed")
    error.__cause__.__cause__ = ExceptionGroup("", [ConnectionRefusedError(111, "Connection refused")])
    return error


@pytest.mark.parametrize(
    ("failure", "kind", "words"),
    [
        (
            Broken(refused_connection(), False),
            Unavailable,
            "cannot be reached (create of pod otto/p): Connection refused",
        ),
        (Broken(httpx.ConnectTimeout(""), False), Unavailable, "did not answer (create of pod otto/p): timed out"),
        (
            Broken(httpx.PoolTimeout(""), False),
            Unavailable,
            "did not answer (create of pod otto/p): no free connection",
        ),
        (Broken(httpx.ReadTimeout("")), Ambiguous, "did not answer (create of pod otto/p): timed out"),
        (Broken(httpx.WriteError("gone")), Ambiguous, "broke off (create of pod otto/p): gone"),
        (Broken(httpx.RemoteProtocolError("no answer")), Ambiguous, "broke off (create of pod otto/p): no answer"),
        (Answer(201, [b'{"a":', httpx.ReadError("cut")]), Ambiguous, "broke off (create of pod otto/p): cut"),
    ],
)
async def test_a_failure_says_how_far_the_request_came(failure: Any, kind: type[Unavailable], words: str) -> None:
    """Before the first byte a write was surely not carried out; after it nobody knows."""
    error = await error_of(create, failure)
    assert (type(error), str(error)) == (kind, f"{ADDRESS} {words}")


async def test_without_a_lease_nothing_is_written() -> None:
    """may_write is asked right before the first byte; what it raises comes out and nothing was sent. Reads go on."""

    def suspended() -> None:
        raise WritesSuspended("the lease ran out")

    async with client(*[Answer()] * 3, Answer(body={"ok": 1}), may_write=suspended) as (kube, net):
        for call in (create, delete, lambda kube: kube.delete_finished_pods("otto", "a=b")):
            with pytest.raises(WritesSuspended):
                await call(kube)
        assert net.sent == []
        assert await get(kube) == {"ok": 1}


async def test_a_refused_token_is_read_again_once(tmp_path: Path) -> None:
    """After 401 the token is read again and the request repeated; refused twice, the error names the credentials."""
    path = tmp_path / "token"
    path.write_text("t1")
    access = Access(server=ADDRESS, credentials=TokenFile(path))
    no = Answer(401, {**STATUS, "message": "Unauthorized", "reason": "Unauthorized", "code": 401})
    async with client(Answer(body={}), no, Answer(body={"ok": 1}), no, no, access=access) as (kube, net):
        await get(kube)
        path.write_text("t2")
        assert await get(kube) == {"ok": 1}
        with pytest.raises(
            Unavailable, match="answered 401 to create of pod otto/p: credentials refused: Unauthorized"
        ):
            await create(kube)
    assert [request.headers["authorization"][-2:] for request in net.asked] == ["t1", "t1", "t2", "t2", "t2"]


async def test_deleting_what_is_gone_is_success() -> None:
    """404 means that what was wanted is the case; another uid is a Conflict."""
    recorded = {refusal["note"]: refusal for refusal in REFUSALS}
    missing, other = recorded["delete missing"], recorded["precondition uid wrong"]
    async with client(Answer(404, missing["body"]), Answer(409, other["body"])) as (kube, _):
        await kube.delete_pod("otto", "del-0")
        with pytest.raises(Conflict, match="does not match the UID in record"):
            await kube.delete_pod("otto", "del-0", uid="00000000-0000-0000-0000-000000000000")


def page(names: str, proceed: str = "") -> Answer:
    """One page of a list; its pods carry more than records need."""
    pods = [
        {
            "metadata": {"name": name, "managedFields": [1]},
            "spec": {"nodeName": "n", "containers": [{"name": "worker", "image": "i"}], "volumes": [1]},
        }
        for name in names
    ]
    return Answer(body={"metadata": {"resourceVersion": "9", "continue": proceed}, "items": pods})


GONE = Answer(410, {**STATUS, "reason": "Expired", "message": "too old", "code": 410})


@pytest.mark.parametrize("recording", ["life", "failures", "more-failures", "platform"])
async def test_listed_pods_keep_all_that_records_are_read_from(recording: str) -> None:
    """What a list drops of a pod changes nothing in its record, for every recorded pod."""
    items = json.loads((RECORDINGS / f"kube-{recording}-pods.json").read_text())
    pods = [item["object"] for item in items if item["object"].get("kind") == "Pod"]
    async with client(Answer(body={"metadata": {}, "items": pods})) as (kube, _):
        listed, _version = await kube.list_pods("otto", "a=b")
    assert list(map(PodRecord.from_pod, listed)) == list(map(PodRecord.from_pod, pods))
    assert len(json.dumps(listed)) < len(json.dumps(pods)) * 0.7


async def test_a_list_is_read_in_pages() -> None:
    """Pages follow each other by token; of each pod only what records need is kept."""
    async with client(page("ab", "next/1"), page("c")) as (kube, net):
        pods, version = await kube.list_pods("otto", "a=b")
    assert [pod["metadata"] for pod in pods] == [{"name": "a"}, {"name": "b"}, {"name": "c"}]
    assert pods[0]["spec"] == {"nodeName": "n", "containers": [{"name": "worker"}], "initContainers": []}
    assert version == 9
    assert net.urls()[1].endswith("&limit=500&continue=next%2F1")


async def test_a_list_that_expires_midway_begins_again() -> None:
    """410 to a page means starting over; three times in a row means that the server is not able to serve it now."""
    async with client(page("ab", "next"), GONE, page("c")) as (kube, _):
        pods, _version = await kube.list_pods("otto", "a=b")
        assert [pod["metadata"]["name"] for pod in pods] == ["c"]
    error = await error_of(lambda kube: kube.list_pods("otto", "a=b"), GONE, GONE, GONE)
    assert isinstance(error, Unavailable)
    assert "let each of 3 lists expire midway" in str(error)


def line(kind: str, version: int) -> bytes:
    """One line of a watch."""
    return json.dumps({"type": kind, "object": {"metadata": {"resourceVersion": str(version)}}}).encode() + b"\n"


async def watched(kube: Kube) -> list[tuple[str, str]]:
    """Type and version of all events until the watch ends."""
    seen: list[tuple[str, str]] = []
    async with aclosing(kube.watch_pods("otto", "a=b", 5)) as events:
        async for event in events:
            seen.append((event.type, event.object["metadata"]["resourceVersion"]))  # noqa: PERF401 - kept when it raises
    return seen


async def test_a_watch_gives_events_wherever_the_chunks_are_cut() -> None:
    """Lines are put together from any chunks; a last line without an end is dropped."""
    text = line("ADDED", 6) + line("MODIFIED", 7) + b"\n" + line("BOOKMARK", 8)
    for size in (1, 7, 60, 1000):
        chunks = [text[i : i + size] for i in range(0, len(text), size)]
        async with client(Answer(body=[*chunks, b'{"type": "ADD'])) as (kube, net):
            assert await watched(kube) == [("ADDED", "6"), ("MODIFIED", "7"), ("BOOKMARK", "8")]
    assert net.urls() == [
        "GET /api/v1/namespaces/otto/pods?watch=1&allowWatchBookmarks=true&labelSelector=a%3Db"
        "&resourceVersion=5&timeoutSeconds=30"
    ]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(body=[line("ADDED", 6), json.dumps({"type": "ERROR", "object": GONE.body}).encode() + b"\n"]), Expired),
        (GONE, Expired),
        (Answer(body=[line("ADDED", 6), httpx.ReadError("cut")]), Unavailable),
        (Answer(body=[b'{"type": "ERROR", "object": {"code": 500}}\n']), Unavailable),
        (Answer(body=[b"<html>\n"]), Unavailable),
        (Answer(body=[b'{"type": 5}\n']), Unavailable),
        (Answer(403, {**STATUS, "reason": "Forbidden", "code": 403}), Refused),
    ],
)
async def test_a_watch_ends_with_the_error_that_its_end_stands_for(answer: Answer, kind: type[Exception]) -> None:
    """410 is Expired, in the stream and as a status; a cut or an odd answer is Unavailable."""
    assert type(await error_of(watched, answer)) is kind


async def test_a_reader_may_leave_a_watch_at_any_event() -> None:
    """Leaving early closes everything in order: no generator is left to the garbage collector."""
    async with client(Answer(body=[line("ADDED", n) for n in range(50)])) as (kube, _):
        async with aclosing(kube.watch_pods("otto", "a=b", 5)) as events:
            async for event in events:
                if event.object["metadata"]["resourceVersion"] == "3":
                    break


async def test_every_request_is_reported() -> None:
    """on_request gets verb, code (None where there was no answer) and seconds of each request."""
    seen: list[tuple[str, int | None]] = []

    def note(verb: str, code: int | None, seconds: float) -> None:
        assert 0 <= seconds < 10
        seen.append((verb, code))

    script = (Answer(201), Answer(404, STATUS), Broken(httpx.ReadTimeout("")), Answer(200), Answer(404, STATUS))
    async with client(*script, on_request=note) as (kube, _):
        await create(kube)
        await delete(kube)
        with pytest.raises(Unavailable):
            await get(kube)
        assert [piece async for piece in kube.read_log("otto", "p", "worker", follow=False)] == [b"", b"{}"]
        with pytest.raises(NotFound):
            await anext(kube.read_log("otto", "p", "worker", follow=True))
    assert seen == [("create", 201), ("delete", 404), ("get", None), ("log", 200), ("follow", 404)]


async def test_few_requests_are_in_flight_and_watches_do_not_count() -> None:
    """Four requests at a time, the others wait; an open watch takes none of their places."""
    here = 0
    most = 0

    class Slow(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal here, most
            here, most = here + 1, max(most, here + 1)
            await trio.testing.wait_all_tasks_blocked()
            here -= 1
            return httpx.Response(200, stream=httpx.ByteStream(b"{}"))

    async with open_kube(Access(server=ADDRESS), may_write=anything_goes, transport=Slow()) as kube:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(get, kube)
    assert most == 4


async def test_a_review_says_yes_or_no() -> None:
    """The answer of a review is read from its status."""
    answers = (Answer(201, {"status": {"allowed": True}}), Answer(201, {"status": {"allowed": False, "reason": "no"}}))
    async with client(*answers) as (kube, net):
        assert await kube.review_access("otto", "create", "pods") == (True, "")
        assert await kube.review_access("otto", "get", "pods", "log") == (False, "no")
    assert json.loads(net.asked[1].content)["spec"] == {
        "resourceAttributes": {"namespace": "otto", "verb": "get", "resource": "pods", "subresource": "log"}
    }
