"""`sweep`: pods of an era that is over go by command only, the present era's and other instances' never."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.cli.sweep import NotDeleted, NotSwept, show_eras, sweep
from ottoscaler.errors import Conflict, Refused, Unavailable
from ottoscaler.kube.manifest import instance_label
from ottoscaler.pods import ERA_LABEL, EVENT_LABEL, INSTANCE_LABEL, MANAGED_BY_LABEL
from ottoscaler.settings import load_settings
from ottoscaler.stream.memory import MemoryServer, MemoryStream

SETTINGS = load_settings({"NAMESPACE": "default"}, {})
OURS = instance_label(SETTINGS.instance_name, SETTINGS.redis_stream, SETTINGS.redis_consumer_group)

HEADER = ["ERA", "PODS", "PRESENT"]


class Api:
    """A namespace with pods, which selects by labels as the API does; `harm` says how a delete of a name fails."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.harm: dict[str, list[Exception]] = {}

    def add(self, name: str, era: str, instance: str = OURS) -> None:
        """A pod of an era."""
        labels = {MANAGED_BY_LABEL: "ottoscaler", INSTANCE_LABEL: instance, ERA_LABEL: era, EVENT_LABEL: "5-0"}
        self.pods[name] = {
            "metadata": {"name": name, "uid": f"uid-{name}", "labels": labels},
            "status": {"phase": "Running"},
        }

    async def list_pods(self, namespace: str, selector: str) -> tuple[list[dict[str, Any]], int]:
        """Those that bear all labels."""
        await trio.lowlevel.checkpoint()
        assert namespace == "default"
        wanted = dict(part.split("=") for part in selector.split(","))
        return [pod for pod in self.pods.values() if wanted.items() <= labels_of(pod).items()], 7

    async def delete_pod(self, namespace: str, name: str, *, uid: str | None = None) -> None:
        """Delete one that has the uid."""
        await trio.lowlevel.checkpoint()
        assert (namespace, uid) == ("default", f"uid-{name}")
        if self.harm.get(name):
            raise self.harm[name].pop(0)
        del self.pods[name]


def labels_of(pod: Mapping[str, Any]) -> dict[str, str]:
    """A pod's labels."""
    found: dict[str, str] = pod["metadata"]["labels"]
    return found


@pytest.fixture
async def stream(autojump_clock: MockClock) -> MemoryStream:
    """A Redis that a scaler serves."""
    stream = MemoryStream(MemoryServer(), "cli")
    await stream.open_group("0", "default")
    return stream


@pytest.fixture
def api() -> Api:
    """Two pods of an era that is over, and one of another instance in it."""
    api = Api()
    api.add("old-1", "0ld")
    api.add("old-2", "0ld")
    api.add("foreign", "0ld", "another")
    return api


async def present(stream: MemoryStream) -> str:
    """The present era."""
    era = await stream.read_era()
    assert era is not None
    return era.id


async def swept(stream: MemoryStream, api: Api, era: str, *, is_dry: bool = False) -> list[str]:
    """Sweep; the names shown."""
    lines: list[str] = []
    await sweep(SETTINGS, stream, api, era, None, lines.append, is_dry=is_dry)
    return [line.split()[0] for line in lines]


async def test_the_eras_are_counted(stream: MemoryStream, api: Api) -> None:
    """A line for the present era and each that has pods of ours; others' pods do not count."""
    now = await present(stream)
    lines: list[str] = []
    await show_eras(SETTINGS, stream, api, None, lines.append)
    assert [line.split() for line in lines] == [
        ["ERA", "PODS", "PRESENT"],
        *sorted([["0ld", "2", "no"], [now, "0", "yes"]]),
    ]
    lines.clear()
    await show_eras(SETTINGS, stream, api, "json", lines.append)
    assert {"era": "0ld", "pods": 2, "present": False} in map(json.loads, lines)


async def test_without_an_era_in_redis_none_is_present(api: Api, autojump_clock: MockClock) -> None:
    """Where Redis knows none, which one is present is unknown, and none may be swept."""
    stream = MemoryStream(MemoryServer(), "cli")
    lines: list[str] = []
    await show_eras(SETTINGS, stream, api, None, lines.append)
    assert [line.split() for line in lines] == [HEADER, ["0ld", "2", "unknown"]]
    with pytest.raises(NotSwept, match="knows no era of the stream otto:scale:events, so 0ld may be present"):
        await swept(stream, api, "0ld")
    assert len(api.pods) == 3


async def test_nothing_at_all_is_said(autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither pods nor an era: one sentence."""
    await show_eras(SETTINGS, MemoryStream(MemoryServer(), "cli"), Api(), None, print)
    assert capsys.readouterr() == ("", "there are no pods of this instance, and no era\n")


async def test_an_era_that_is_over_is_swept(stream: MemoryStream, api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run shows the pods and deletes none; then ours of that era go and no other."""
    api.add("new", await present(stream))
    assert await swept(stream, api, "0ld", is_dry=True) == ["NAME", "old-1", "old-2"]
    assert len(api.pods) == 4
    assert await swept(stream, api, "0ld") == ["NAME", "old-1", "old-2"]
    assert set(api.pods) == {"foreign", "new"}
    assert await swept(stream, api, "0ld") == []
    assert capsys.readouterr().err.splitlines() == [
        "2 pods of era 0ld would be deleted",
        "2 pods of era 0ld deleted",
        "there are no pods of era 0ld",
    ]


async def test_the_present_era_is_refused(stream: MemoryStream, api: Api) -> None:
    """Its pods belong to events; not even a dry run shows them."""
    now = await present(stream)
    api.add("new", now)
    for is_dry in (True, False):
        with pytest.raises(NotSwept, match=f"--era is '{now}', which is the present era"):
            await swept(stream, api, now, is_dry=is_dry)
    assert "new" in api.pods


@pytest.mark.parametrize("era", ["", "a,b=c", "x" * 64])
async def test_what_is_no_era_is_refused(stream: MemoryStream, api: Api, era: str) -> None:
    """A value that no label can have is refused before it reaches a selector."""
    with pytest.raises(NotSwept, match="expected an era as"):
        await swept(stream, api, era)


async def test_another_namespace_is_refused(api: Api, autojump_clock: MockClock) -> None:
    """The era says in which namespace its pods are."""
    stream = MemoryStream(MemoryServer(), "cli")
    await stream.open_group("0", "elsewhere")
    with pytest.raises(NotSwept, match="NAMESPACE is 'default', expected 'elsewhere'"):
        await swept(stream, api, "0ld")


async def test_while_redis_is_away_nothing_is_swept(stream: MemoryStream, api: Api) -> None:
    """An unknown present era is no reason to go on."""
    stream._server.weather = "refusing"
    with pytest.raises(Unavailable):
        await swept(stream, api, "0ld")
    assert len(api.pods) == 3


async def test_failing_deletes_are_repeated_or_named(stream: MemoryStream, api: Api) -> None:
    """What passes is tried again; a refusal is named at the end and stops no other; a name taken anew is left alone."""
    api.add("old-3", "0ld")
    api.harm = {
        "old-1": [Unavailable("away"), Unavailable("away")],
        "old-2": [Refused("may not", status=403, target="pod default/old-2")],
        "old-3": [Conflict("another uid", status=409)],
    }
    with pytest.raises(NotDeleted, match=r"^pod default/old-2: may not .403.$"):
        await swept(stream, api, "0ld")
    assert set(api.pods) == {"old-2", "old-3", "foreign"}
