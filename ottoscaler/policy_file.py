"""The policy's file: its schema, and reading it again when it changes.

    version: 1
    images: [registry.example.com/team/*]       beyond OTTO_AGENT_IMAGE and those of the templates
    commands:                                   command and args that an event may ask for; absent = any
      - [make, ...]                             word by word; `...` at the end = any more words
      - [ENTRYPOINT, --shard, "*"]              ENTRYPOINT = args for the image's own command
    ceilings: {cpu: "2", memory: 4Gi, workers: 100, timeout_seconds: 3600}

Every scalar is read as the text that stands there, so that YAML makes no number of an image's version.
"""

from __future__ import annotations

import reprlib
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ottoscaler.errors import SettingsError
from ottoscaler.log import log
from ottoscaler.parsing import parse_quantity, quantity, whole
from ottoscaler.spec import LONGEST_TIMEOUT

ENTRYPOINT = "ENTRYPOINT"
MORE = "..."
SETTLED_SECONDS = 1.0
"""A file changed less than this ago may change again without showing it (same size, same tick of its clock)."""


class Ceilings(NamedTuple):
    """The most that one event may have; None = no ceiling. CPU (cores) and memory (bytes) are of one whole pod."""

    cpu: Decimal | None = None
    memory: Decimal | None = None
    timeout_seconds: int | None = None
    workers: int | None = None


class Rules(NamedTuple):
    """What a file says; `commands` None = any. Without a file these are its defaults."""

    images: tuple[str, ...] = ()
    commands: tuple[tuple[str, ...], ...] | None = None
    ceilings: Ceilings = Ceilings()


class PolicyFile:
    """The rules of a file, as they are now. None as path: no file, and the default rules for ever.

    `rules` are the last that could be read; `problem` says why those that stand in the file now cannot, "" = they can.
    Raises `SettingsError` where they cannot at the start.
    """

    def __init__(self, path: str | None, *, now: Callable[[], float] = time.time) -> None:
        self.rules = Rules()
        self.problem = ""
        self._path = Path(path).expanduser() if path else None
        self._now = now
        self._stamp: tuple[int, ...] | None = None
        self._text: bytes | None = None
        if self._path is not None:
            self._text = self._read()
            self.rules = parse_rules(self._text, str(self._path))

    @property
    def is_given(self) -> bool:
        """Whether there is a file at all."""
        return self._path is not None

    def look(self) -> None:
        """Read the file again if it has changed; what is wrong with it is logged once, and kept as `problem`."""
        if self._path is None:
            return
        try:
            stamp = self._look_at_stamp()
            if stamp is not None and stamp == self._stamp:
                return
            text = self._read()
        except SettingsError as error:
            self._text = self._stamp = None
            self._note("; ".join(error.problems))
            return
        self._stamp = stamp
        if text != self._text:
            self._text = text
            self._take(text)

    def _take(self, text: bytes) -> None:
        try:
            self.rules = parse_rules(text, str(self._path))
        except SettingsError as error:
            self._note("; ".join(error.problems))
        else:
            self._note("")

    def _note(self, problem: str) -> None:
        if problem and problem != self.problem:
            words = "policy cannot be used: whatever asks for more than the defaults is refused"
            log.error(words, is_change=True, reason=problem)
        elif self.problem and not problem:
            log.info("policy can be used again")
        self.problem = problem

    def _look_at_stamp(self) -> tuple[int, ...] | None:
        """What changes when the file does; None while it may change without showing it."""
        assert self._path is not None
        try:
            seen = self._path.stat()
        except OSError as error:
            raise _unreadable(self._path, error) from error
        is_settled = abs(self._now() - seen.st_mtime) > SETTLED_SECONDS
        return (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns) if is_settled else None

    def _read(self) -> bytes:
        assert self._path is not None
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise _unreadable(self._path, error) from error


def _unreadable(path: Path, error: OSError) -> SettingsError:
    return SettingsError([f"POLICY_FILE is {str(path)!r}, expected a file that can be read ({error.strerror})"])


def parse_rules(text: bytes, file: str) -> Rules:
    """The rules that a file's text says. Raises `SettingsError` with every problem, each naming file and field."""
    judge = _Judge(file)
    try:
        rules = judge.rules(_load(text))
    except UnicodeDecodeError:
        judge.add("", "is no UTF-8 text")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f": line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        judge.add("", f"is not YAML{place}: {getattr(error, 'problem', None) or 'cannot be parsed'}")
    except RecursionError:
        judge.add("", "is nested too deeply")
    if judge.problems:
        raise SettingsError(judge.problems)
    return rules


class _PlainLoader(yaml.BaseLoader):
    """Texts, lists and mappings only; a key given twice is an error, because one of them would be ignored."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is no text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _load(text: bytes) -> Any:
    return yaml.load(text.decode(), Loader=_PlainLoader)


class _Judge:
    """Looks at one document field by field, and keeps what is wrong."""

    def __init__(self, file: str) -> None:
        self.problems: list[str] = []
        self._file = file

    def rules(self, document: object) -> Rules:
        given = self._mapping("", document, ("version", "images", "commands", "ceilings"))
        if isinstance(document, dict) and given.get("version") != "1":
            said = f"is {_show(given['version'])}" if "version" in given else "is missing"
            self.add("version", f"{said}, expected 1")
        commands = given.get("commands")
        return Rules(
            images=self._texts("images", given.get("images", [])),
            commands=None if commands is None else self._commands(commands),
            ceilings=self._ceilings(given.get("ceilings", {})),
        )

    def _mapping(self, where: str, value: object, fields: tuple[str, ...]) -> Mapping[str, Any]:
        expected = f"expected a mapping of {', '.join(fields)}"
        if not isinstance(value, dict):
            self.add(where, f"is {_show(value)}, {expected}")
            return {}
        for name in value:
            if name not in fields:
                self.add(f"{where}.{name}" if where else name, f"is unknown, expected {', '.join(fields)}")
        return value

    def _texts(self, where: str, value: object) -> tuple[str, ...]:
        if not isinstance(value, list):
            self.add(where, f"is {_show(value)}, expected a list of texts")
            return ()
        for index, text in enumerate(value):
            if not isinstance(text, str) or not text:
                self.add(f"{where}[{index}]", f"is {_show(text)}, expected a text")
        return tuple(value)

    def _commands(self, value: object) -> tuple[tuple[str, ...], ...]:
        if not isinstance(value, list):
            self.add("commands", f"is {_show(value)}, expected a list of commands, each a list of texts")
            return ()
        commands = tuple(self._texts(f"commands[{index}]", words) for index, words in enumerate(value))
        for index, words in enumerate(commands):
            if isinstance(value[index], list) and (not words or words[0] == MORE or MORE in words[:-1]):
                self.add(f"commands[{index}]", f"is {_show(value[index])}, expected words, and {MORE} as the last only")
        return commands

    def _ceilings(self, value: object) -> Ceilings:
        given = self._mapping("ceilings", value, Ceilings._fields)
        read: dict[str, Any] = {}
        for name, kind in _CEILINGS.items():
            if name not in given:
                continue
            try:
                raw = kind.parse(given[name]) if isinstance(given[name], str) else None
                if raw is None:
                    raise ValueError
                read[name] = parse_quantity(raw) if name in ("cpu", "memory") else raw
            except ValueError:
                self.add(f"ceilings.{name}", f"is {_show(given[name])}, expected {kind.expected}")
        return Ceilings(**read)

    def add(self, where: str, problem: str) -> None:
        """Keep one problem."""
        self.problems.append(f"POLICY_FILE: {self._file}: {where}{' ' if where else ''}{problem}")


_CEILINGS = {
    "cpu": quantity("1m", "500m"),
    "memory": quantity("1", "128Mi"),
    "workers": whole(1, 1_000_000),
    "timeout_seconds": whole(1, LONGEST_TIMEOUT),
}


_shorten = reprlib.Repr()
_shorten.maxstring = 80


def _show(value: object) -> str:
    return _shorten.repr(value)
