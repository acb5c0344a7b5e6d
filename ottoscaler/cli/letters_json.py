"""Dead letters as JSON, one object per line: what `dlq export` writes and `dlq import` reads."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ottoscaler.cli.letters import BadLetter, Found, is_id

if TYPE_CHECKING:
    from ottoscaler.stream.dead_letters import Letter


def to_json(found: Found) -> str:
    """One dead letter as a line of JSON: its fields, with its `id`, the original `entry` as a list. A newer version's
    fields are texts as they are written.
    """
    from ottoscaler.outcomes import newer_version

    id_, fields = found
    whole: dict[str, Any] = {"id": id_, **fields}
    if newer_version(fields):
        return json.dumps(whole, ensure_ascii=False)
    if str(_number(fields.get("deliveries", ""))) == fields.get("deliveries"):
        whole["deliveries"] = int(fields["deliveries"])
    with suppress(KeyError, ValueError):  # what is not in our form is kept as it is
        whole["entry"] = json.loads(fields["entry"])
    return json.dumps(whole, ensure_ascii=False)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() else -1


def from_lines(lines: Iterable[bytes], source: str) -> "list[Letter]":
    """The dead letters that `to_json` wrote; blank lines are passed over. BadLetter names `source` and line."""
    return [_from_json(line, f"{source}, line {at}") for at, line in enumerate(lines, start=1) if line.strip()]


def _from_json(line: bytes, where: str) -> "Letter":
    from ottoscaler.events import MOST_FIELDS
    from ottoscaler.stream.dead_letters import Letter

    try:
        whole = json.loads(line)
    except ValueError:
        whole = None
    if not isinstance(whole, dict):
        raise BadLetter(f"{where} is no JSON object, expected one per line, as `dlq export` writes them")
    former_id = _text_of(whole, "id", where)
    if not is_id(former_id):
        raise BadLetter(f"{where}: id is {former_id!r}, expected an id such as 1756659802903-0")
    if len(whole) > MOST_FIELDS:
        raise BadLetter(f"{where} has {len(whole)} fields, expected at most {MOST_FIELDS}")
    pairs = {name: _field(name, value, where) for name, value in whole.items() if name != "id"}
    for name in ("event_id", "cause", "entry"):
        _text_of(pairs, name, where)
    return Letter(pairs["event_id"], former_id, tuple(pairs.items()))


def _text_of(whole: Mapping[str, Any], name: str, where: str) -> str:
    value = whole.get(name)
    if not isinstance(value, str) or not value:
        was = "missing" if value is None else repr(value)
        raise BadLetter(f"{where}: {name} is {was}, expected what `dlq export` wrote there")
    return value


def _field(name: str, value: Any, where: str) -> str:
    """One field as it stood in the dead letter."""
    import msgspec

    from ottoscaler.events import load_entry

    if isinstance(value, str):
        return value
    if name == "entry":
        text = msgspec.json.encode(value).decode()
        try:
            load_entry(text)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise BadLetter(f"{where}: entry is {text[:80]}, expected a list of pairs of name and value") from None
        return text
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise BadLetter(f"{where}: {name} is {value!r}, expected a text or a whole number")
