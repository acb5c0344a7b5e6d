"""What one event may say of its own workers: the JSON of the reserved field `otto.spec`.

In: the text of the field. Out: a `Spec`, or a `WrongSpec` that names field, value and what was expected. Whether it may
be asked for at all is the policy's word, not said here. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

from ottoscaler.causes import CAUSES, suggest_cause

FIELD = "otto.spec"
LONGEST_SPEC = 65_536
"""Bytes of the field's text. Every pod of the event carries command and arguments, and so does its progress."""
LONGEST_TIMEOUT = 2**31 - 1
LONGEST_DELAY = 86_400
MOST_ATTEMPTS = 100
RETRYABLE_CLASSES = ("own", "platform")
_SHOWN = 80


class WrongSpec(ValueError):
    """A spec that means nothing: `field` (with its path), `value` as it was written, and what was `expected`. The
    sentence has the value as others have it: a text in quotes, and so the whole of `otto.spec`; numbers as they are.
    """

    def __init__(self, field: str, value: str, expected: str, shown: str = "") -> None:
        self.field = field
        said = " ".join(value.split())
        self.value = _short(said)
        self.expected = expected
        super().__init__(f"field {field} is {shown or _short(_quoted(field, said))}, expected {expected}")


class Retry(msgspec.Struct, frozen=True, omit_defaults=True):
    """How failures of this event's workers are met; None = what template and settings say.

    `retryable_failures`: causes and classes (own, platform); what is not among them is not run again.
    """

    max_attempts: int | None = None
    retry_delay_seconds: float | None = None
    retryable_failures: tuple[str, ...] | None = None


class Spec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an event asks of its workers' container, beyond template and settings.

    `image` "" and `timeout_seconds` 0 = not given; `command` and `args` None = not given, () = the image's own.
    """

    image: str = ""
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    timeout_seconds: int = 0
    retry: Retry = Retry()


def parse_spec(text: str) -> Spec:
    """Read the text of `otto.spec`; a field that is null counts as not given. Raises `WrongSpec`."""
    if (size := len(text.encode())) > LONGEST_SPEC:
        size_shown = f"{size} bytes long"
        raise WrongSpec(FIELD, size_shown, f"at most {LONGEST_SPEC} bytes", size_shown)
    given = _object(FIELD, text, _SPEC)
    return Spec(**given)


def dump_spec(spec: Spec) -> str:
    """The text that `parse_spec` reads as this spec, if it may be one."""
    return msgspec.json.encode(spec).decode()


def show_spec(spec: Spec) -> str:
    """The spec in as many characters as a sentence bears."""
    return _short(dump_spec(spec))


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _quoted(field: str, text: str) -> str:
    """`text` is what stands in the field: of `otto.spec` any text, of a field in it JSON."""
    if field == FIELD:
        return repr(text)
    try:
        return repr(msgspec.json.decode(text, type=str))
    except msgspec.DecodeError:
        return text


def _object(where: str, text: str, fields: dict[str, Callable[[str, str], Any]]) -> dict[str, Any]:
    """Each field of one JSON object, read by its reader; null is left out."""
    expected = f"a JSON object of {', '.join(fields)}"
    raw: dict[str, msgspec.Raw] = _decode(where, text, expected, dict[str, msgspec.Raw])
    values = {}
    for name, value in raw.items():
        said = bytes(value).decode()
        if name not in fields:
            _refuse(where, text, f"only {', '.join(fields)} in it")
        if said != "null":
            values[name] = fields[name](f"{where}.{name}", said)
    return values


def _decode(where: str, text: str, expected: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError):
        _refuse(where, text, expected)


def _refuse(where: str, text: str, expected: str) -> NoReturn:
    raise WrongSpec(where, text, expected) from None


def _image(where: str, text: str) -> str:
    """Spaces and what cannot be printed are in no image name; the rest only the cluster can judge."""
    expected = "an image name without spaces"
    image: str = _decode(where, text, expected, str)
    if not image or not image.isprintable() or " " in image:
        _refuse(where, text, expected)
    return image


def _words(where: str, text: str) -> tuple[str, ...]:
    expected = 'a list of texts such as ["sh", "-c", "make test"]'
    words: tuple[str, ...] = _decode(where, text, expected, tuple[str, ...])
    if any("\0" in word for word in words):
        _refuse(where, text, f"{expected}, without a NUL character")
    return words


def _whole(least: int, most: int, words: str = "") -> Callable[[str, str], int]:
    def read(where: str, text: str) -> int:
        expected = f"a whole number from {least}{words} to {most}"
        number: int = _decode(where, text, expected, int)
        if not least <= number <= most:
            _refuse(where, text, expected)
        return number

    return read


def _delay(where: str, text: str) -> float:
    expected = f"a number of seconds from 0 to {LONGEST_DELAY}"
    number: float = _decode(where, text, expected, float)
    if not 0 <= number <= LONGEST_DELAY:
        _refuse(where, text, expected)
    return number


def _failures(where: str, text: str) -> tuple[str, ...]:
    words: tuple[str, ...] = _decode(where, text, "a list of causes or classes (own, platform)", tuple[str, ...])
    if not words:
        _refuse(where, text, "at least one cause or class")
    for word in words:
        cause = CAUSES.get(word)
        if word not in RETRYABLE_CLASSES and (cause is None or cause.kind in ("none", "report")):
            shown = msgspec.json.encode(word).decode()
            hint = suggest_cause(word[:_SHOWN]) if cause is None else ""
            _refuse(where, shown, f"a cause of failure, or a class (own, platform){hint}")
    return words


def _retry(where: str, text: str) -> Retry:
    return Retry(**_object(where, text, _RETRY))


_RETRY: dict[str, Callable[[str, str], Any]] = {
    "max_attempts": _whole(1, MOST_ATTEMPTS),
    "retry_delay_seconds": _delay,
    "retryable_failures": _failures,
}
_SPEC: dict[str, Callable[[str, str], Any]] = {
    "image": _image,
    "command": _words,
    "args": _words,
    "timeout_seconds": _whole(0, LONGEST_TIMEOUT, " (none)"),
    "retry": _retry,
}
