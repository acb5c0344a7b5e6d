"""What stands in GRPC_TOKENS_FILE: what is wrong with it is named, and each token finds its own entry."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ottoscaler.rpc.tokens import Token, Tokens, read_tokens
from tests.rpc.test_access import entry


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tokens: []", "holds a mapping, expected a YAML list of {name, sha256, roles: [scale, read]}"),
        ("", "holds nothing, expected a YAML list of {name, sha256, roles: [scale, read]}"),
        ("- handler", "has a text as entry 1, expected {name, sha256, roles}"),
        (
            entry("a", "x", "read") + entry("board", "y", "admin"),
            "has, in entry 2 ('board'), roles ['admin'], expected a list of scale, read or both",
        ),
        (
            "- {name: a, sha256: a-token-put-here-by-mistake, roles: [read]}",
            "has, in entry 1 ('a'), sha256 'a-to'... of 27 characters, "
            "expected the SHA-256 of a token: 64 hexadecimal digits, in quotes",
        ),
        (
            f"- {{name: a, sha256: {'1' * 64}, roles: [read]}}",
            "has, in entry 1 ('a'), sha256 a number, expected the SHA-256 of a token: 64 hexadecimal digits, in quotes",
        ),
        (
            "- {name: a, roles: [read]}",
            "has, in entry 1 ('a'), no sha256, expected the SHA-256 of a token: 64 hexadecimal digits, in quotes",
        ),
        ("- {name: 7}", "has, in entry 1, name 7, expected a text of 1 to 253 characters"),
        (entry("a", "x", "read") + entry("a", "y", "scale"), "has the name 'a' twice"),
        (
            entry("a", "x", "read") + entry("b", "y", "read") + entry("c", "x", "scale"),
            "has, in entries 1 ('a') and 3 ('c'), the same sha256, expected a token of its own for each",
        ),
        ("- {name: a, token: s3cret}", "has, in entry 1 ('a'), the field 'token', expected only name, sha256, roles"),
    ],
)
def test_what_is_wrong_with_a_token_is_named(tmp_path: Path, text: str, reason: str) -> None:
    """Entry by number and name, field, value and what was expected; never a whole hash, or what may be a token."""
    file = tmp_path / "tokens.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"^{re.escape(reason)}$"):
        read_tokens(str(file))


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["name", "sha256", "roles", "x"]) | st.integers(), inner)
        ),
    )
)
def test_any_file_of_tokens_is_judged(tmp_path_factory: pytest.TempPathFactory, document: object) -> None:
    """Whatever stands in the file: it is read, or refused as a wrong setting."""
    file = tmp_path_factory.getbasetemp() / "any-tokens.yaml"
    file.write_text(yaml.safe_dump(document))
    with suppress(ValueError):
        assert all(isinstance(token, Token) for token in read_tokens(str(file)))


@given(st.lists(st.tuples(st.text(min_size=1, max_size=9), st.sampled_from(["scale", "read"])), min_size=1, max_size=5))
def test_a_token_is_found_by_itself_alone(given_tokens: list[tuple[str, str]]) -> None:
    """Whatever tokens there are, each finds its own entry, and nothing else finds any."""
    tokens = Tokens.__new__(Tokens)
    entries = [
        Token(name=str(number), sha256=hashlib.sha256(text.encode()).hexdigest(), roles=[role])  # type: ignore[list-item]  # one of them
        for number, (text, role) in enumerate(dict(given_tokens).items())
    ]
    tokens._tokens, tokens._refresh = tuple(entries), lambda: None  # type: ignore[method-assign]  # no file behind it
    for number, text in enumerate(dict(given_tokens)):
        assert tokens.find(text) == entries[number]
        assert tokens.find(text + "\n") is None or text + "\n" in dict(given_tokens)


def test_hashes_in_capitals_are_the_same_hash(tmp_path: Path) -> None:
    """Tools print hashes in either case."""
    file, digest = tmp_path / "tokens", hashlib.sha256(b"x").hexdigest()
    file.write_text(f"- {{name: a, sha256: {digest.upper()}, roles: [read]}}\n")
    assert Tokens(str(file)).find("x") == read_tokens(str(file))[0]
    file.write_text(file.read_text() + entry("b", "x", "scale"))
    with pytest.raises(ValueError, match=r"in entries 1 \('a'\) and 2 \('b'\), the same sha256"):
        read_tokens(str(file))
