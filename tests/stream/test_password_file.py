"""REDIS_PASSWORD_FILE: the password is read at every login, so that one that changes is known without a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottoscaler.errors import Unavailable
from ottoscaler.parsing import RedisAddress
from ottoscaler.settings import load_settings
from tests.stream.backends import RedisBackend

pytestmark = pytest.mark.slow_clock


@pytest.mark.parametrize("username", [None, "otto"])
async def test_a_changed_password_is_read_at_the_next_login(
    own: RedisBackend, tmp_path: Path, username: str | None
) -> None:
    """A refused login is an outage that ends when the file is right, and so is a file that is not there."""
    user, file = username or "default", tmp_path / "password"
    server = own.server
    server.command("ACL", "SETUSER", user, "on", "resetpass", ">first", "~*", "&*", "+@all")
    backend = RedisBackend.at(
        RedisAddress(scheme="unix", path=own.address.path, username=username, password_file=str(file))
    )
    stream = backend.open("one")
    with pytest.raises(Unavailable, match=rf"REDIS_PASSWORD_FILE '{file}' cannot be read \(No such file"):
        await stream.live_events()
    file.write_text("first\n")
    assert await stream.live_events() == []
    server.command("ACL", "SETUSER", user, "resetpass", ">second")
    server.command("CLIENT", "KILL", "SKIPME", "yes", "TYPE", "normal")
    with pytest.raises(Unavailable, match="refuses the login") as caught:
        await stream.live_events()
    assert "first" not in str(caught.value)
    file.write_text("second")
    assert await stream.live_events() == []
    backend.disconnect()


def test_the_file_stands_in_place_of_the_password() -> None:
    """It wins over REDIS_PASSWORD, and the password of REDIS_URL over both, as it does over REDIS_PASSWORD."""
    given = {"REDIS_PASSWORD_FILE": "/etc/redis/password", "REDIS_PASSWORD": "x"}
    assert load_settings(given).redis_address.password_file == "/etc/redis/password"
    address = load_settings(given | {"REDIS_URL": "redis://me:y@host"}).redis_address
    assert address.password_file is None
    assert address.password is not None
    assert address.password.reveal() == "y"
