"""`python -m ottoscaler.cli.settings_table`: write docs/settings.md from the descriptions of the settings."""

from pathlib import Path

from ottoscaler.settings import FIELDS, flag_of

INTRODUCTION = """# Settings

Every setting is an environment variable and a flag of `ottoscaler serve`; the flag wins, and an empty value counts as
unset. Wrong settings end the start with exit code 2 and one line for each. This table is made by
`python -m ottoscaler.cli.settings_table`.

| variable and flag | default | expected | effect |
|---|---|---|---|
"""


def settings_table() -> str:
    """The whole of docs/settings.md."""
    return INTRODUCTION + "".join(_row(variable) for variable in FIELDS)


def _row(variable: str) -> str:
    field = FIELDS[variable]
    literal = f"`{field.default}`" if isinstance(field.default, str) and not field.shown else field.shown
    cells = (f"`{variable}`<br>`{flag_of(variable)}`", literal, field.kind.expected, field.effect)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    Path(__file__).parents[2].joinpath("docs", "settings.md").write_text(settings_table())
