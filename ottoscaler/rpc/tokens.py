"""The bearer tokens of GRPC_TOKENS_FILE: who may call, known by the SHA-256 of each token only.

    - {name: otto-handler, sha256: 9f86d081…, roles: [scale]}
    - {name: board, sha256: 60303ae2…, roles: [read]}

`printf %s "$TOKEN" | sha256sum` makes the hash. A token should be a random one of 128 bits or more: nothing slows down
who tries the hashes of guesses.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ottoscaler.kube.yaml_file import read_yaml
from ottoscaler.log import log
from ottoscaler.rpc.watched_files import WatchedFiles

Role = Literal["scale", "read"]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-fA-F]{64}\Z")]
Roles = Annotated[list[Role], msgspec.Meta(min_length=1)]
EXPECTED = "a YAML list of {name, sha256, roles: [scale, read]}"
FIELDS: dict[str, tuple[object, str]] = {
    "name": (Name, "a text of 1 to 253 characters"),
    "sha256": (Hash, "the SHA-256 of a token: 64 hexadecimal digits, in quotes"),
    "roles": (Roles, "a list of scale, read or both"),
}
_SHOWN = 40


class Token(msgspec.Struct, frozen=True):
    """One caller; `scale` contains `read`."""

    name: Name
    sha256: Hash
    roles: Roles

    def has_role(self, role: Role) -> bool:
        """Whether the caller may do what needs `role`."""
        return role in self.roles or "scale" in self.roles


def read_tokens(path: str) -> tuple[Token, ...]:
    """The tokens of a file; ValueError says what is wrong with it, and completes the sentence "this file ..."."""
    entries = read_yaml(Path(path))
    if not isinstance(entries, list):
        raise ValueError(f"holds {_kind(entries)}, expected {EXPECTED}")
    tokens = tuple(_token(number, entry) for number, entry in enumerate(entries, start=1))
    names = [token.name for token in tokens]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"has the name {min(twice)!r} twice")
    _refuse_shared(tokens)
    return tokens


def _refuse_shared(tokens: Sequence[Token]) -> None:
    """One token is one caller: of two entries nobody could say whose roles count."""
    first: dict[str, int] = {}
    for number, token in enumerate(tokens, start=1):
        before = first.setdefault(token.sha256.lower(), number)
        if before != number:
            where = f"{before} ({_short(tokens[before - 1].name)}) and {number} ({_short(token.name)})"
            raise ValueError(f"has, in entries {where}, the same sha256, expected a token of its own for each")


def _token(number: int, entry: object) -> Token:
    """One entry, counted from 1, judged field by field."""
    if not isinstance(entry, dict):
        raise ValueError(f"has {_kind(entry)} as entry {number}, expected {{name, sha256, roles}}")
    name = entry.get("name")
    where = f"has, in entry {number}" + (f" ({_short(name)})," if isinstance(name, str) and name else ",")
    if strange := [field for field in entry if field not in FIELDS]:
        raise ValueError(f"{where} the field {_short(strange[0])}, expected only {', '.join(FIELDS)}")
    for field, (kind, expected) in FIELDS.items():
        try:
            msgspec.convert(entry.get(field), kind)
        except msgspec.ValidationError:
            show = _hidden if field == "sha256" else _short
            said = f"{field} {show(entry[field])}" if field in entry else f"no {field}"
            raise ValueError(f"{where} {said}, expected {expected}") from None
    return Token(**entry)


def _hidden(value: object) -> str:
    """Enough of a hash to find it: it may be a token itself, put there by mistake."""
    return f"{value[:4]!r}... of {len(value)} characters" if isinstance(value, str) else _kind(value)


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    return {dict: "a mapping", list: "a list", str: "a text", bool: "a boolean"}.get(type(value), "a number")


class Tokens:
    """The tokens as the file has them now; while it cannot be read nobody is known, which is logged once."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._problem = ""
        self._file = WatchedFiles((path,))  # first, so that no change is missed
        self._tokens = read_tokens(path)

    def find(self, given: str) -> Token | None:
        """Whose token this is. The time that it takes does not depend on which token, or how much of one, was right."""
        self._refresh()
        digest = hashlib.sha256(given.encode()).hexdigest()
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.sha256.lower(), digest):
                found = token
        return found

    def _refresh(self) -> None:
        if not self._file.has_changed():
            return
        before, problem = self._tokens, ""
        try:
            self._tokens = read_tokens(self._path)
        except ValueError as error:
            self._tokens, problem = (), str(error)
        if problem and problem != self._problem:
            words = "every call is refused: the tokens are not known"
            log.error(words, is_change=True, file=self._path, reason=f"it {problem}")
        elif not problem and (self._tokens != before or self._problem):
            log.info("tokens read again", file=self._path, tokens=len(self._tokens))
        self._problem = problem
