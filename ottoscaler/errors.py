"""Errors, grouped by what the caller can do about them."""

from collections.abc import Iterable


class OttoscalerError(Exception):
    """Base of every error that Ottoscaler raises on purpose."""


class FixYourCall(OttoscalerError):
    """The caller gave something that can never work; repeating it is useless."""


class SettingsError(FixYourCall):
    """Wrong settings: every problem at once, each naming the variable, its value and what was expected."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))
