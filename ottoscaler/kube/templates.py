"""Worker templates: v1 PodTemplates from a YAML file, or from a folder of them that events choose from by name.

Everything that can be judged without the API is judged at the start, all problems at once, each naming file and field.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ottoscaler.errors import SettingsError, UnknownTemplate
from ottoscaler.kube.manifest import worker_container
from ottoscaler.kube.yaml_file import read_yaml

SUFFIXES = (".yaml", ".yml", ".json")
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Templates:
    """The templates by name, each the `template` part of its PodTemplate; `fallback` serves events that name none."""

    by_name: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))
    fallback: Mapping[str, Any] | None = None

    @property
    def names(self) -> frozenset[str]:
        """All names that an event may choose."""
        return frozenset(self.by_name)

    @property
    def images(self) -> frozenset[str]:
        """The images that they give to the worker's container."""
        named = [self.fallback, *self.by_name.values()]
        ours = (worker_container(template["spec"]["containers"]) for template in named if template)
        return frozenset(container["image"] for container in ours if container.get("image"))

    def choose(self, name: str | None) -> Mapping[str, Any] | None:
        """The template of this name; with no name the fallback, None where there is none (the settings alone)."""
        if not name:
            return self.fallback
        if name not in self.by_name:
            expected = ", ".join(sorted(self.by_name)) or "none (no templates are configured)"
            raise UnknownTemplate(f"template is {name!r}, expected one of: {expected}")
        return self.by_name[name]


def load_templates(path: str | None, own_apps: Collection[str] = ()) -> Templates:
    """Read a file, or a folder's *.yaml, *.yml and *.json (name = the file's stem); None = no templates.

    A single file serves every event that names none; in a folder the one called `default` does. `own_apps` are values
    of the label `app` that no worker may have. Raises SettingsError.
    """
    if not path:
        return Templates()
    place = Path(path).expanduser()
    problems: list[str] = []
    loaded = {file.stem: _load(file, own_apps, problems) for file in _files(place, problems)}
    if problems:
        raise SettingsError([f"WORKER_TEMPLATE: {problem}" for problem in problems])
    fallback = loaded.get(DEFAULT) if place.is_dir() else next(iter(loaded.values()))
    return Templates(MappingProxyType(loaded), fallback)


def _files(place: Path, problems: list[str]) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        problems.append(f"{place} does not exist, expected a file or a folder")
        return []
    files = [f for f in place.iterdir() if f.suffix in SUFFIXES and f.is_file() and not f.name.startswith(".")]
    files.sort(key=lambda file: (file.stem, file.suffix))
    if not files:
        problems.append(
            f"{place} is a folder without templates, expected {', '.join('*' + suffix for suffix in SUFFIXES)}"
        )
    for first, second in pairwise(files):  # sorted, so that equal stems are neighbours
        if first.stem == second.stem:
            problems.append(f"{second} is a second template with the name {second.stem!r}, expected one")
    return files


def _load(file: Path, own_apps: Collection[str], problems: list[str]) -> Mapping[str, Any]:
    """The `template` part of one file; what is wrong is added to `problems`."""
    try:
        document = read_yaml(file)
    except ValueError as error:
        problems.append(f"{file} {error}, expected a v1 PodTemplate")
        return {}
    return _Judge(str(file), own_apps, problems).template(document)


class _Judge:
    """Looks at one document, field by field; every problem names its file and field."""

    def __init__(self, file: str, own_apps: Collection[str], problems: list[str]) -> None:
        self._file = file
        self._own_apps = own_apps
        self._problems = problems

    def template(self, document: object) -> Mapping[str, Any]:
        """Judge the whole document and return its template."""
        if not isinstance(document, dict):
            self._add("", "is no mapping, expected a v1 PodTemplate")
            return {}
        kind = (document.get("apiVersion"), document.get("kind"))
        if kind != ("v1", "PodTemplate"):
            self._add(
                "", f"is {' '.join(str(word) for word in kind if word) or 'of no kind'}, expected a v1 PodTemplate"
            )
            return {}
        template = self._mapping(document, "template", "template", is_needed=True)
        metadata = self._mapping(template, "metadata", "template.metadata")
        for key in ("labels", "annotations"):
            self._texts(metadata, key, f"template.metadata.{key}")
        self._selected(metadata)
        if template:
            self._spec(self._mapping(template, "spec", "template.spec", is_needed=True))
        return template

    def _spec(self, spec: Mapping[str, Any]) -> None:
        where = "template.spec"
        if not spec:
            return
        self._mapping(spec, "securityContext", f"{where}.securityContext")
        containers = spec.get("containers")
        if not isinstance(containers, list) or not containers:
            self._add(f"{where}.containers", f"{_said(containers)}, expected a list of at least one container")
        for key in ("containers", "initContainers"):
            self._containers(spec.get(key), f"{where}.{key}")

    def _containers(self, containers: object, where: str) -> None:
        if containers is None:
            return
        if not isinstance(containers, list):
            if not where.endswith(".containers"):
                self._add(where, f"is {containers!r}, expected a list of containers")
            return
        for index, container in enumerate(containers):
            if not isinstance(container, dict):
                self._add(f"{where}[{index}]", f"is {container!r}, expected a container (a mapping)")
                continue
            self._container(container, f"{where}[{index}]")

    def _container(self, container: Mapping[str, Any], where: str) -> None:
        name = container.get("name")
        if not isinstance(name, str) or not name:
            self._add(f"{where}.name", f"{_said(name)}, expected a name")
        if not isinstance(container.get("image") or "", str):
            self._add(f"{where}.image", f"is {container['image']!r}, expected a text")
        for key in ("command", "args"):
            values = container.get(key)
            if values is not None and not (isinstance(values, list) and all(isinstance(v, str) for v in values)):
                self._add(f"{where}.{key}", f"is {values!r}, expected a list of texts")
        for key in ("resources", "securityContext"):
            self._mapping(container, key, f"{where}.{key}")
        self._environment(container.get("env"), f"{where}.env")

    def _environment(self, env: object, where: str) -> None:
        if env is None:
            return
        if not isinstance(env, list):
            self._add(where, "is no list, expected one of name and value")
            return
        for index, pair in enumerate(env):
            if not isinstance(pair, dict) or not isinstance(pair.get("name"), str):
                self._add(f"{where}[{index}].name", "is missing, expected a name")
            elif not isinstance(pair.get("value", ""), str):
                self._add(f"{where}[{index}].value", f"is {pair['value']!r}, expected a text (put it in quotes)")

    def _mapping(
        self, parent: Mapping[str, Any], key: str, where: str, *, is_needed: bool = False
    ) -> Mapping[str, Any]:
        value = parent.get(key)
        if isinstance(value, dict) and (value or not is_needed):
            return value
        if value is not None or is_needed:
            self._add(where, f"{_said(value)}, expected a mapping")
        return {}

    def _texts(self, parent: Mapping[str, Any], key: str, where: str) -> None:
        for name, value in self._mapping(parent, key, where).items():
            if not isinstance(value, str):
                self._add(f"{where}[{name}]", f"is {value!r}, expected a text (put it in quotes)")

    def _selected(self, metadata: Mapping[str, Any]) -> None:
        labels = metadata.get("labels")
        app = labels.get("app") if isinstance(labels, dict) else None
        if isinstance(app, str) and app in self._own_apps:
            expected = "expected another value: the Service and the policies of the pods called so would select workers"
            self._add("template.metadata.labels[app]", f"is {app!r}, {expected}")

    def _add(self, where: str, problem: str) -> None:
        self._problems.append(f"field {where} of {self._file} {problem}" if where else f"{self._file} {problem}")


def _said(value: object) -> str:
    return "is missing" if value is None else f"is {value!r}"
