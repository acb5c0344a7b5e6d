"""Reading a YAML file of somebody else, with words for what is wrong that never repeat its text (maybe secret)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def _loader() -> Any:
    """Dates are texts, as for Kubernetes: YAML 1.1 makes objects of them that no JSON can hold, or fails."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
        for first, known in loader.yaml_implicit_resolvers.items()
    }
    return type("Loader", (loader,), {"yaml_implicit_resolvers": resolvers})


_LOADER = _loader()


def read_yaml(file: Path) -> object:
    """The one document of a file; ValueError completes the sentence "this file ..."."""
    try:
        return yaml.load(file.read_text(), Loader=_LOADER)
    except UnicodeDecodeError as error:
        raise ValueError("is no UTF-8 text") from error
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise ValueError(f"is not YAML{_place(error)}") from error
    except (ValueError, LookupError, AttributeError) as error:  # of a tag such as !!int; its words repeat the text
        raise ValueError("is not YAML (a value is not of the type that its tag says)") from error


def _place(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f" (line {mark.line + 1}, column {mark.column + 1}: {problem})" if mark and problem else ""
