"""What docs/install.md shows works as it stands there: values, settings, names of objects and of files."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import kubernetes_validate
import yaml

from ottoscaler import __version__
from ottoscaler.cli import COMMANDS
from ottoscaler.settings import FIELDS
from tests.deploy.helm import CHART, MANIFESTS, ROOT, Values, objects_of, render, run_helm

PAGE = (ROOT / "docs" / "install.md").read_text()
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_values_of_the_page_are_taken() -> None:
    """All values that are shown render, and every object is valid."""
    for shown in (text for language, text in BLOCKS if language == "yaml"):
        for (kind, _), each in render(yaml.safe_load(shown), "team-a").items():
            if kind not in ("ServiceMonitor", "PrometheusRule"):
                kubernetes_validate.validate(each, "1.36", strict=True)


def test_what_the_page_names_is_there() -> None:
    """Settings, chart values in backticks, commands, manifests, and the version of the image."""
    for name in re.findall(r"`([A-Z][A-Z_]{4,})(?:=[^`]*)?`", PAGE):
        assert name in FIELDS, name
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for path in re.findall(r"`(?:--set )?([a-z]\w+(?:\.\w+)+)(?:=[^`]*)?`", PAGE):
        words = path.split(".")
        if words[0] in values and words[0] not in ("settings", "secrets"):
            found = values
            for word in words:
                assert word in found, path
                found = found[word]
    for page in (PAGE, README):
        for command in re.findall(r"-- ottoscaler (\w+)", page):
            assert command in COMMANDS
        assert set(re.findall(r"deploy/\w+\.yaml", page)) <= {f"deploy/{name}" for name in MANIFESTS}
        assert set(re.findall(r"ottoscaler:(\d+\.\d+\.\d+)", page)) == {__version__}


def test_commands_find_their_objects() -> None:
    """The Deployment and the Secret that are typed are those of the manifests."""
    for name in MANIFESTS:
        objects = objects_of((ROOT / "deploy" / name).read_text())
        assert ("Deployment", "ottoscaler") in objects
    assert set(re.findall(r"deployment/([\w-]+)", PAGE + README)) == {"ottoscaler"}
    assert "create secret generic ottoscaler " in PAGE


NOTES_AS_OBJECT = """
apiVersion: v1
kind: ConfigMap
metadata: {name: notes}
data:
  notes: |
    {{- tpl (.Files.Get "NOTES.txt") . | nindent 4 }}
"""


def notes(folder: Path, values: Values, namespace: str) -> str:
    """What helm shows after an installation, which it renders for a cluster only: so as an object's text."""
    chart = folder / "chart"
    shutil.copytree(CHART, chart, dirs_exist_ok=True)
    shutil.copy(CHART / "templates" / "NOTES.txt", chart)
    (chart / "templates" / "notes.yaml").write_text(NOTES_AS_OBJECT)
    text = run_helm("template", "ottoscaler", str(chart), "--namespace", namespace, values=values)
    return str(objects_of(text)["ConfigMap", "notes"]["data"]["notes"])


def test_the_notes_say_what_to_type_next(tmp_path: Path) -> None:
    """They name the release's own objects, where its Redis is expected, and what is only for trying out."""
    plain = notes(tmp_path, {"name": "mine", "settings": {"NAMESPACE": "workers"}}, "team-a")
    assert "kubectl -n team-a exec deployment/mine -- ottoscaler check" in plain
    assert "kubectl -n workers get pods -l managed-by=ottoscaler" in plain
    assert "Redis is expected at redis:6379" in plain
    assert "gRPC is in plain text" in plain
    tried = notes(tmp_path, {"valkey": {"enabled": True}, "grpc": {"tls": {"existingSecret": "mine"}}}, "default")
    assert "not for production" in tried
    assert "plain text" not in tried
    assert "is expected" not in tried


def test_the_notes_tell_of_grpc_what_holds(tmp_path: Path) -> None:
    """Tokens, a NetworkPolicy that is switched off, and a door that is shut are told as they are."""
    policy = "the NetworkPolicy lets in otto-handler alone"
    plain = notes(tmp_path, {}, "default")
    assert "gRPC is in plain text and without tokens" in plain
    assert policy in plain
    guarded = notes(tmp_path, {"grpc": {"existingTokens": "mine"}, "networkPolicy": {"enabled": False}}, "default")
    assert "gRPC is in plain text: " in guarded
    assert policy not in guarded
    assert "no NetworkPolicy" in guarded
    assert "gRPC" not in notes(tmp_path, {"settings": {"GRPC_ENABLED": False}}, "default")
