"""Opening the stream that the settings name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from ottoscaler.errors import SettingsError
from ottoscaler.parsing import RedisAddress
from ottoscaler.stream.keys import Keys
from ottoscaler.stream.memory import MemoryStream
from ottoscaler.stream.opening import new_session_name, open_stream
from ottoscaler.stream.redis import RedisStream
from tests.stream.backends import RedisBackend


@dataclass(frozen=True)
class Wanted:
    """What the settings would say."""

    redis_address: RedisAddress
    redis_stream: str = "test:events"
    redis_consumer_group: str = "ottoscaler"
    redis_consumer: str = "host"
    redis_trim: str = "auto"
    lease_seconds: float = 3.0
    results_keep: int = 10
    results_max_bytes: int = 1000


async def test_memory_is_the_twin() -> None:
    """`memory://` gives the twin under a session name that is new each time."""
    async with open_stream(Wanted(RedisAddress(scheme="memory"))) as stream:
        assert isinstance(stream, MemoryStream)
        assert stream.address == "memory://"
        assert (await stream.open_group("0", "default")).namespace == "default"
        assert stream.session.startswith("host-")
        assert new_session_name("host") != new_session_name("host")


@pytest.mark.slow_clock
async def test_an_address_is_redis(own: RedisBackend) -> None:
    """Anything else is Redis; the session's name can be given."""
    async with open_stream(Wanted(own.address), "host-1") as stream:
        assert isinstance(stream, RedisStream)
        assert stream.session == "host-1"
        assert (await stream.open_group("0", "default")).namespace == "default"


def test_keys_of_two_groups_never_meet() -> None:
    """Every key begins with the stream's name, without `:events`, and with the group where it is not the default."""
    default, other = Keys("otto:scale:events", "ottoscaler"), Keys("otto:scale:events", "blue")
    assert default.results == "otto:scale:results"
    assert default.dead_letters == "otto:scale:dlq"
    assert other.results == "otto:scale:blue:results"
    assert Keys("{tag}:events", "ottoscaler").progress("1-1") == "{tag}:progress:1-1"
    assert default.held("blue") != other.held("")


@pytest.mark.parametrize("name", ["ssl_ca_certs", "ssl_certfile"])
async def test_a_tls_file_that_cannot_be_used_is_a_wrong_setting(tmp_path: Path, name: str) -> None:
    """It is named before anything is connected: that Redis cannot be reached would lead to the network."""
    (tmp_path / "text").write_text("no PEM")
    for file, why in (("nowhere", "No such file or directory"), ("text", "")):
        address = RedisAddress(scheme="rediss", host="127.0.0.1", options={name: str(tmp_path / file)})
        with pytest.raises(
            SettingsError, match=rf"REDIS_URL has {name}={tmp_path / file}, expected .* in PEM \(.*{why}"
        ):
            async with open_stream(Wanted(address)):
                pass
