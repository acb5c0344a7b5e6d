"""The Redis user that docs/install.md describes, read from there, so that what is documented is what is tested."""

from __future__ import annotations

import re
from pathlib import Path

from ottoscaler.stream.keys import DEFAULT_GROUP, Keys
from tests.stream.servers import Server

DOCUMENT = Path(__file__).parents[2] / "docs" / "install.md"
DOCUMENTED_STREAM = "otto:scale:events"
OPTIONAL = {b"config|get", b"config", b"type"}
"""What is tried without the right, and done without."""


def documented_rules(prefix: str) -> list[str]:
    """The user's rules behind its password, with the keys of another stream's prefix."""
    block = DOCUMENT.read_text().split("<!-- acl:")[1].split("```")[1]
    words = block.split()
    assert words[:5] == ["ACL", "SETUSER", "ottoscaler", "on", ">PASSWORD"]
    documented = Keys(DOCUMENTED_STREAM, DEFAULT_GROUP).prefix
    return [re.sub(rf"^~{re.escape(documented)}(?=:)", f"~{prefix}", word) for word in words[5:]]


def make_user(server: Server, prefix: str, *, name: str = "otto", password: str = "secret", waits: bool = True) -> None:
    """Let in the documented user, for the keys of one stream; `waits`: the server knows WAITAOF."""
    more = ["+waitaof"] if waits else []
    server.command("ACL", "SETUSER", name, "reset", "on", f">{password}", *documented_rules(prefix), *more)
    server.command("ACL", "LOG", "RESET")


def denied(server: Server) -> set[bytes]:
    """The commands and keys that users were denied since then."""
    return {entry[entry.index(b"object") + 1] for entry in server.command("ACL", "LOG")}
