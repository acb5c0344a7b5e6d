"""The bearer tokens of GRPC_TOKENS_FILE: who may call, known by the SHA-256 of each token only.

    - {name: otto-handler, sha256: 9f86d081…, roles: [scale]}
    - {name: board, sha256: 60303ae2…, roles: [read]}

`printf %s "$TOKEN" | sha256sum` makes the hash. A token should be a random one of 128 bits or more: nothing slows down
who tries the hashes of guesses.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ottoscaler.kube.yaml_file import read_yaml
from ottoscaler.log import log
from ottoscaler.rpc.watched_files import WatchedFiles

Role = Literal["scale", "read"]
EXPECTED = "a YAML list of {name, sha256, roles: [scale, read]}"


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One caller; `scale` contains `read`."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-fA-F]{64}$")]
    roles: Annotated[list[Role], msgspec.Meta(min_length=1)]

    def has_role(self, role: Role) -> bool:
        """Whether the caller may do what needs `role`."""
        return role in self.roles or "scale" in self.roles


def read_tokens(path: str) -> tuple[Token, ...]:
    """The tokens of a file; ValueError says what is wrong with it, without repeating its text."""
    try:
        tokens = msgspec.convert(read_yaml(Path(path)), tuple[Token, ...])
    except msgspec.ValidationError as error:
        raise ValueError(f"is not {EXPECTED} ({error})") from error
    names = [token.name for token in tokens]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"has the name {min(twice)!r} twice")
    return tokens


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
