"""`python -m ottoscaler.cli.settings_table`: write the tables of settings, in docs/settings.md and in the README, and
their names in the schema of the chart's values.
"""

import json
from pathlib import Path

from ottoscaler.parsing import parse_redis_url
from ottoscaler.secret import Secret
from ottoscaler.settings import FIELDS, flag_of

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "deploy" / "chart" / "values.schema.json"
INTRODUCTION = """# Settings

Every setting is an environment variable and a flag of `ottoscaler serve`; the flag wins, and an empty value counts as
unset. Wrong settings end the start with exit code 2 and one line for each. This table is made by
`python -m ottoscaler.cli.settings_table`.

| variable and flag | default | expected | effect |
|---|---|---|---|
"""
BEGIN, END = "<!-- settings:", "<!-- end of settings -->"


def settings_table() -> str:
    """The whole of docs/settings.md."""
    rows = (
        (f"`{name}`<br>`{flag_of(name)}`", _default(name), field.kind.expected, field.effect)
        for name, field in FIELDS.items()
    )
    return INTRODUCTION + "".join(map(_row, rows))


def readme_with_table(readme: str) -> str:
    """The README with its table, which stands between two marks, made anew."""
    before, rest = readme.split(BEGIN)
    mark, _, rest = rest.partition("\n")
    rows = ((f"`{name}`", _default(name), field.effect) for name, field in FIELDS.items())
    table = "| variable | default | effect |\n|---|---|---|\n" + "".join(map(_row, rows))
    return f"{before}{BEGIN}{mark}\n{table}{END}{rest.partition(END)[2]}"


def schema_with_settings(schema: str) -> str:
    """The schema of the chart's values with every setting there is, so that helm refuses a misspelt one."""
    parsed = json.loads(schema)
    secrets = {name for name, field in FIELDS.items() if field.kind.parse in (Secret, parse_redis_url)}
    for values, names in (("settings", FIELDS.keys() - secrets), ("secrets", secrets)):
        known = {name: {"description": FIELDS[name].effect} for name in FIELDS if name in names}
        parsed["properties"][values] = {"type": "object", "additionalProperties": False, "properties": known}
    return json.dumps(parsed, indent=2) + "\n"


def _default(name: str) -> str:
    field = FIELDS[name]
    return f"`{field.default}`" if isinstance(field.default, str) and not field.shown else field.shown


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    (ROOT / "docs" / "settings.md").write_text(settings_table())
    (ROOT / "README.md").write_text(readme_with_table((ROOT / "README.md").read_text()))
    SCHEMA.write_text(schema_with_settings(SCHEMA.read_text()))
