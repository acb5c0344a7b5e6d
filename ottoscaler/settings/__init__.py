"""The settings: one frozen object, read once at the start from the environment and from flags of the same name.

Each field says its kind (with unit and what is expected), default and effect in one place, in the file of its group;
help texts and docs/settings.md are made from it. A flag wins over its variable; an empty value counts as unset. The
groups are one chain of classes, so that every setting is an attribute of the one object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_type_hints

from ottoscaler import parsing
from ottoscaler.errors import SettingsError
from ottoscaler.parsing import choice
from ottoscaler.secret import Secret
from ottoscaler.settings.doors import DoorSettings
from ottoscaler.settings.field import Field

__all__ = ["FIELDS", "Field", "Settings", "flag_of", "load_settings"]


class Settings(DoorSettings, frozen=True, kw_only=True):
    """Every setting of Ottoscaler, checked; made by `load_settings`. The variable is the attribute in upper case."""

    log_level: Annotated[
        str,
        Field(choice("debug", "info", "warning", "error"), "info", "The least severe lines that are logged."),
    ]
    log_format: Annotated[
        str,
        Field(
            choice("auto", "text", "json"),
            "auto",
            "Form of the log lines; auto is text on a terminal and json elsewhere.",
        ),
    ]


FIELDS: dict[str, Field] = {
    name.upper(): get_args(hint)[1] for name, hint in get_type_hints(Settings, include_extras=True).items()
}


def flag_of(variable: str) -> str:
    """The flag of a variable: REDIS_HOST is set by --redis-host."""
    return "--" + variable.lower().replace("_", "-")


def load_settings(environ: Mapping[str, str], flags: Mapping[str, str] | None = None) -> Settings:
    """Read and check every setting; `flags` are keyed like `environ` (REDIS_HOST) and win over it.

    Raises SettingsError with all problems at once, each naming what was given, its value and what was expected.
    """
    given = {**environ, **{name: value for name, value in (flags or {}).items() if value.strip()}}
    values: dict[str, Any] = {}
    problems: list[str] = []
    for variable, field in FIELDS.items():
        try:
            values[variable.lower()] = _value(field, given.get(variable, ""), given)
        except ValueError as error:
            source = flag_of(variable) if (flags or {}).get(variable, "").strip() else variable
            problems.append(_problem(field, source, given.get(variable, ""), error))
    if problems:
        raise SettingsError(problems)
    return Settings(**values)


def _value(field: Field, given: str, environ: Mapping[str, str]) -> Any:
    """The value of one field; a password keeps inner and outer spaces, but not the line end a file put behind it."""
    raw = given.rstrip("\r\n") if field.kind.parse is Secret else given.strip()
    if raw.strip():
        return field.kind.parse(raw)
    default = field.default(environ) if callable(field.default) else field.default
    return None if default is None else field.kind.parse(default)


def _problem(field: Field, source: str, raw: str, error: ValueError) -> str:
    """One sentence: what was given, its value (never a secret's) and what was expected."""
    shown = "***" if field.kind.parse in (Secret, parsing.parse_redis_url) else repr(raw.strip())
    detail = f" ({error})" if isinstance(error, parsing.WrongValue) else ""
    return f"{source} is {shown}, expected {field.kind.expected}{detail}"
