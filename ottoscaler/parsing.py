"""How the text of a setting becomes a value: one `Kind` for each sort of value, with the words for what it expects.

A kind's `parse` takes the text (stripped, never empty) and returns the value, or raises ValueError: a WrongValue's
message adds a detail to `expected`, any other ValueError's message is never shown, for it may repeat a secret.
Nothing here reads files, the environment or the network.
"""

import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from ottoscaler.secret import Secret


class WrongValue(ValueError):
    """A refusal whose message says what exactly is wrong; it never repeats the value."""


Shape = Literal["text", "boolean", "integer", "number", "list", "map"]


class Kind(NamedTuple):
    """A sort of value: how its text is read, what is expected of it, and its unit (empty where it has none).

    `shape` is how it is written where values have types, as in YAML; a number lies between `least` and `most`, both
    included, a text is one of `words`, in any case, where there are any.
    """

    parse: Callable[[str], Any]
    expected: str
    unit: str = ""
    shape: Shape = "text"
    least: float = -math.inf
    most: float = math.inf
    words: tuple[str, ...] = ()


def text(expected: str = "a text without spaces") -> Kind:
    """A name or address: printable and without spaces, so that it can stand in keys, labels and logs."""

    def parse(raw: str) -> str:
        if any(char.isspace() or not char.isprintable() for char in raw):
            raise ValueError
        return raw

    return Kind(parse, expected)


def matching(pattern: str, expected: str, longest: int = 253) -> Kind:
    """A text that matches `pattern` as a whole and has at most `longest` characters."""

    def parse(raw: str) -> str:
        if len(raw) > longest or not re.fullmatch(pattern, raw):
            raise ValueError
        return raw

    return Kind(parse, expected)


def choice(*words: str) -> Kind:
    """One of a few words, in any case; the value is in lower case."""

    def parse(raw: str) -> str:
        if raw.lower() not in words:
            raise ValueError
        return raw.lower()

    return Kind(parse, f"{', '.join(words[:-1])} or {words[-1]}", words=words)


def path() -> Kind:
    """A path of the file system, as it is written; whether it exists is for its reader to say."""
    return Kind(str, "a path", "path")


def secret() -> Kind:
    """Any text, kept as a Secret."""
    return Kind(Secret, "any text")


def whole(least: int, most: int, unit: str = "count") -> Kind:
    """A whole number from `least` to `most`, both included, in decimal digits."""

    def parse(raw: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", raw) or not least <= int(raw) <= most:
            raise ValueError
        return int(raw)

    of_unit = " of bytes" if unit == "bytes" else ""
    return Kind(parse, f"a whole number{of_unit} from {least} to {most}", unit, "integer", least, most)


def port() -> Kind:
    """A TCP port; also `tcp://host:port`, which Kubernetes itself puts into REDIS_PORT beside a service named redis."""
    number = whole(1, 65535, "port")

    def parse(raw: str) -> int:
        return int(number.parse(re.sub(r"^tcp://.*:", "", raw)))

    return number._replace(parse=parse)


def seconds(least: float, most: float) -> Kind:
    """A time in seconds from `least` to `most`, both included; fractions are allowed."""

    def parse(raw: str) -> float:
        value = float(raw)
        if not math.isfinite(value) or not least <= value <= most:
            raise ValueError
        return value

    return Kind(parse, f"a number of seconds from {least:g} to {most:.0f}", "seconds", "number", least, most)


def json_list() -> Kind:
    """A JSON list of texts, as a tuple: a command or its arguments."""

    def parse(raw: str) -> tuple[str, ...]:
        try:
            return msgspec.json.decode(raw, type=tuple[str, ...])
        except msgspec.DecodeError as error:
            raise WrongValue(str(error)) from error

    return Kind(parse, 'a JSON list of texts such as ["sh", "-c"]', "JSON", "list")


def json_map() -> Kind:
    """A JSON object of texts: names and what they are set to."""

    def parse(raw: str) -> dict[str, str]:
        try:
            return msgspec.json.decode(raw, type=dict[str, str])
        except msgspec.DecodeError as error:
            raise WrongValue(str(error)) from error

    return Kind(parse, 'a JSON object of texts such as {"OutOfMemory": "final"}', "JSON", "map")


def flag() -> Kind:
    """Yes or no."""

    def parse(raw: str) -> bool:
        if raw.lower() not in ("true", "false"):
            raise ValueError
        return raw.lower() == "true"

    return Kind(parse, "true or false", shape="boolean")


_FACTORS = {"": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3")}
_FACTORS |= {unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)}
_FACTORS |= {f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d{1,2})|([numkMGTPE]|[KMGTPE]i)?)", re.ASCII)


def parse_quantity(raw: str) -> Decimal:
    """The number that a Kubernetes quantity such as `500m`, `128Mi` or `1e3` stands for; ValueError where it is none.

    The grammar is that of `resource.Quantity` in Kubernetes' API conventions.
    """
    match = _QUANTITY.fullmatch(raw)
    if match is None:
        raise ValueError
    number, exponent, suffix = match.groups()
    return Decimal(number + (exponent or "")) * _FACTORS[suffix or ""]


def quantity(least: str, example: str) -> Kind:
    """A Kubernetes quantity of at least `least`, kept as it is written: the API reads it again."""

    def parse(raw: str) -> str:
        if parse_quantity(raw) < parse_quantity(least):
            raise ValueError
        return raw

    return Kind(parse, f"a Kubernetes quantity of at least {least}, such as {example}", "quantity")


class RedisAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where Redis is and how to get in; `str()` is the address without user and password, fit for logs.

    `db`, `username` and `password` are None where the URL does not say; `options` are TLS file names and switches.
    The password that stands in `password_file`, if there is one, wins.
    """

    scheme: str  # redis, rediss (TLS), unix, memory
    host: str = ""
    port: int = 6379
    path: str = ""  # of the socket, with scheme unix
    db: int | None = None
    username: str | None = None
    password: Secret | None = None
    password_file: str | None = None
    options: dict[str, str] = {}

    def __str__(self) -> str:
        if self.scheme == "memory":
            return "memory://"
        if self.scheme == "unix":
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}/{self.db or 0}"


TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")


def redis_url() -> Kind:
    """A Redis URL, as a RedisAddress."""
    return Kind(
        parse_redis_url,
        "redis://, rediss:// (TLS) or unix:// as in rediss://user:password@host:6379/0, or memory://",
        "URL",
    )


def parse_redis_url(raw: str) -> RedisAddress:
    """Take a Redis URL apart; ValueError, which never repeats the URL, where it is none or has an unknown option."""
    url = urlsplit(raw)
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    db = options.pop("db", url.path.strip("/") if url.scheme in ("redis", "rediss") else "")
    if unknown := sorted(options.keys() - set(TLS_OPTIONS)):
        raise WrongValue(f"the option {unknown[0]} is not one of {', '.join(TLS_OPTIONS)}")
    if url.scheme not in ("redis", "rediss", "unix", "memory") or (db and not db.isdecimal()):
        raise ValueError
    if url.scheme == "unix" and not url.path.strip("/"):
        raise WrongValue("the path of the socket is missing")
    return RedisAddress(
        scheme=url.scheme,
        host=url.hostname or "localhost",
        port=6379 if url.port is None else url.port,
        path=unquote(url.path) if url.scheme == "unix" else "",
        db=int(db) if db else None,
        username=unquote(url.username) if url.username else None,
        password=Secret(unquote(url.password)) if url.password else None,
        options=options,
    )
