"""Reading a YAML file of somebody else, with words for what is wrong that never repeat its text (maybe secret)."""

from __future__ import annotations

from pathlib import Path

import yaml


def read_yaml(file: Path) -> object:
    """The one document of a file; ValueError completes the sentence "this file ..."."""
    try:
        return yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except UnicodeDecodeError as error:
        raise ValueError("is no UTF-8 text") from error
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise ValueError(f"is not YAML{_place(error)}") from error


def _place(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f" (line {mark.line + 1}, column {mark.column + 1}: {problem})" if mark and problem else ""
