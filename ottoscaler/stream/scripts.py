"""The Lua scripts: one file each in `lua/`, all behind the same prologue, called by their hash."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import Any

import msgspec
from redis.exceptions import NoScriptError

from ottoscaler.stream.keys import Keys
from ottoscaler.stream.link import Exchange, Link


@cache
def script_text(name: str) -> str:
    """The whole text of a script."""
    folder = resources.files("ottoscaler.stream") / "lua"
    return "\n".join((folder / f"{file}.lua").read_text("utf-8") for file in ("prologue", name))


@cache
def script_hash(name: str) -> str:
    """The hash by which Redis knows it."""
    return hashlib.sha1(script_text(name).encode(), usedforsecurity=False).hexdigest()


class Scripts:
    """Calls scripts in the name of one session."""

    def __init__(self, keys: Keys, session: str) -> None:
        self._always = (1, keys.stream, keys.prefix, keys.group, session)

    async def call(self, link: Link, name: str, **arguments: Any) -> Any:
        """Run a script, one step for everybody else; its raw answer. A server that does not know it gets its text."""
        words = (*self._always, msgspec.json.encode(arguments))

        def work(exchange: Exchange) -> Any:
            try:
                return exchange("EVALSHA", script_hash(name), *words)
            except NoScriptError:
                return exchange("EVAL", script_text(name), *words)

        return await link.run(work)
