"""Settings as flags: made from the same descriptions as docs/settings.md, and read back with the environment."""

import argparse
import os
from collections.abc import Iterable

from ottoscaler.settings import FIELDS, Field, Settings, flag_of, load_settings

REDIS = tuple(name for name in FIELDS if name.startswith("REDIS_"))
KUBERNETES = ("KUBECONFIG", "NAMESPACE", "INSTANCE_NAME")


def add_setting_flags(parser: argparse.ArgumentParser, variables: Iterable[str]) -> None:
    """Add one flag for each of `variables`; its help names effect, unit, default and variable."""
    group = parser.add_argument_group("settings", "Each flag is also an environment variable; the flag wins.")
    for variable in variables:
        field = FIELDS[variable]
        group.add_argument(
            flag_of(variable), dest=variable, default="", metavar=metavar(field), help=flag_help(variable)
        )


def metavar(field: Field) -> str:
    """What stands for the value in a usage line: the unit, or TEXT."""
    return field.kind.unit.upper() or "TEXT"


def flag_help(variable: str) -> str:
    """One paragraph of help for a variable, with `%` doubled as argparse wants it."""
    field = FIELDS[variable]
    default = f"default: {field.default_shown}" if field.default_shown else "unset by default"
    return f"{field.effect} Expected: {field.kind.expected} ({default}). [{variable}]".replace("%", "%%")


def settings_from(args: argparse.Namespace) -> Settings:
    """The settings from the environment and from the flags that `add_setting_flags` added."""
    return load_settings(os.environ, {name: value for name, value in vars(args).items() if name in FIELDS})
