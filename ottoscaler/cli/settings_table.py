"""`python -m ottoscaler.cli.settings_table`: write the tables of settings, in docs/settings.md and in the README, and
their names and what they may be in the schema of the chart's values.
"""

import json
from pathlib import Path
from typing import Any

from ottoscaler.parsing import Kind, parse_redis_url
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
NUMBERS = {"integer": "-?[0-9]+", "number": "[-+]?[0-9]*[.]?[0-9]+([eE][-+]?[0-9]+)?"}
"""The text of a number, for which the schema knows no bounds."""
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
    """The schema of the chart's values with every setting there is, so that helm refuses a misspelt or a wrong one."""
    parsed = json.loads(schema)
    secrets = {name for name, field in FIELDS.items() if field.kind.parse in (Secret, parse_redis_url)}
    for values, names in (("settings", FIELDS.keys() - secrets), ("secrets", secrets)):
        known = {name: {"description": FIELDS[name].effect} for name in FIELDS if name in names}
        if values == "settings":
            known = {name: said | value_schema(FIELDS[name].kind) for name, said in known.items()}
        parsed["properties"][values] = {"type": "object", "additionalProperties": False, "properties": known}
    return json.dumps(parsed, indent=2) + "\n"


def value_schema(kind: Kind) -> dict[str, Any]:
    """What a value of this kind may be in YAML: typed, as the text of a variable, or nothing, which is unset."""
    match kind.shape:
        case "boolean":
            return {"enum": [True, False, *_spellings("true", "false"), "", None]}
        case "integer" | "number":
            text = f"^({NUMBERS[kind.shape]})?$"
            bounds = {"minimum": kind.least, "maximum": kind.most}
            return {"type": [kind.shape, "string", "null"], **bounds, "pattern": text}
        case "list":
            return {"type": ["array", "string", "null"], "items": {"type": "string"}}
        case "map":
            return {"type": ["object", "string", "null"], "additionalProperties": {"type": "string"}}
    return {"enum": [*_spellings(*kind.words), "", None]} if kind.words else {}


def _spellings(*words: str) -> list[str]:
    return [spelling for word in words for spelling in (word, word.capitalize(), word.upper())]


def _default(name: str) -> str:
    field = FIELDS[name]
    return f"`{field.default}`" if isinstance(field.default, str) and not field.shown else field.shown


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    (ROOT / "docs" / "settings.md").write_text(settings_table())
    (ROOT / "README.md").write_text(readme_with_table((ROOT / "README.md").read_text()))
    SCHEMA.write_text(schema_with_settings(SCHEMA.read_text()))
