"""Worker templates: what is read, what may be chosen, and the exact words for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottoscaler.errors import SettingsError, UnknownTemplate
from ottoscaler.kube.templates import load_templates
from ottoscaler.settings import load_settings

GOOD = "apiVersion: v1\nkind: PodTemplate\ntemplate: {spec: {containers: [{name: worker, image: 'i:1'}]}}\n"


def refusal(path: Path) -> list[str]:
    """All that is said about bad templates."""
    with pytest.raises(SettingsError) as caught:
        load_templates(str(path))
    return caught.value.problems


def test_without_a_path_there_are_no_templates() -> None:
    """Events that name none get the settings alone; one that names any is told that there is none."""
    templates = load_templates(None)
    assert templates.choose(None) is None
    with pytest.raises(
        UnknownTemplate, match=r"^template is 'x', expected one of: none \(no templates are configured\)$"
    ):
        templates.choose("x")


def test_a_single_file_serves_events_that_name_none(tmp_path: Path) -> None:
    """One file is the template of all, and may be chosen by its stem too."""
    (tmp_path / "big.yaml").write_text(GOOD)
    templates = load_templates(str(tmp_path / "big.yaml"))
    assert (
        templates.choose(None)
        == templates.choose("big")
        == {"spec": {"containers": [{"name": "worker", "image": "i:1"}]}}
    )
    assert templates.names == {"big"}


def test_in_a_folder_default_serves_events_that_name_none(tmp_path: Path) -> None:
    """Events choose by file stem; without `default` an event that names none gets the settings alone."""
    (tmp_path / "big.yaml").write_text(GOOD)
    (tmp_path / "notes.txt").write_text("no template")
    (tmp_path / "..data.yaml").write_text("hidden")
    assert load_templates(str(tmp_path)).choose("") is None
    (tmp_path / "default.yml").write_text(GOOD.replace("i:1", "i:2"))
    templates = load_templates(str(tmp_path))
    chosen = templates.choose(None)
    assert chosen is not None
    assert chosen["spec"]["containers"][0]["image"] == "i:2"
    with pytest.raises(UnknownTemplate, match=r"^template is 'huge', expected one of: big, default$"):
        templates.choose("huge")


SPEC = "template.spec.containers"


def of(spec: str) -> str:
    """A template file with this spec."""
    return f"apiVersion: v1\nkind: PodTemplate\ntemplate: {{spec: {spec}}}\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "is not YAML (line 2, column 1: did not find expected node content), expected a v1 PodTemplate"),
        ("- a", "is no mapping, expected a v1 PodTemplate"),
        ("kind: Pod\napiVersion: v1", "is v1 Pod, expected a v1 PodTemplate"),
        ("kind: PodTemplate\napiVersion: v1", "template is missing, expected a mapping"),
        ("kind: PodTemplate\napiVersion: v1\ntemplate: 5", "template is 5, expected a mapping"),
        ("kind: PodTemplate\napiVersion: v1\ntemplate: {metadata: {}}", "template.spec is missing, expected a mapping"),
        (of("{containers: []}"), f"{SPEC} is [], expected a list of at least one container"),
        (of("{containrs: [a]}"), f"{SPEC} is missing, expected a list of at least one container"),
        (of("{containers: [5]}"), f"{SPEC}[0] is 5, expected a container (a mapping)"),
        (of("{containers: [{image: i}]}"), f"{SPEC}[0].name is missing, expected a name"),
        (of("{containers: [{name: w, image: 5}]}"), f"{SPEC}[0].image is 5, expected a text"),
        (of("{containers: [{name: w, command: sleep}]}"), f"{SPEC}[0].command is 'sleep', expected a list of texts"),
        (of("{containers: [{name: w, args: [5]}]}"), f"{SPEC}[0].args is [5], expected a list of texts"),
        (of("{containers: [{name: w, resources: 5}]}"), f"{SPEC}[0].resources is 5, expected a mapping"),
        (of("{containers: [{name: w, env: {A: b}}]}"), f"{SPEC}[0].env is no list, expected one of name and value"),
        (of("{containers: [{name: w, env: [{value: b}]}]}"), f"{SPEC}[0].env[0].name is missing, expected a name"),
        (
            of("{containers: [{name: w, env: [{name: A, value: 5}]}]}"),
            f"{SPEC}[0].env[0].value is 5, expected a text (put it in quotes)",
        ),
        (
            of("{containers: [{name: w}], initContainers: 5}"),
            "template.spec.initContainers is 5, expected a list of containers",
        ),
        (
            of("{containers: [{name: w}], securityContext: []}"),
            "template.spec.securityContext is [], expected a mapping",
        ),
        (
            GOOD.replace("template: {", "template: {metadata: {labels: {on: yes}}, "),
            "template.metadata.labels[True] is True, expected a text (put it in quotes)",
        ),
        (
            GOOD.replace("template: {", "template: {metadata: {labels: {app: [a]}}, "),
            "template.metadata.labels[app] is ['a'], expected a text (put it in quotes)",
        ),
    ],
)
def test_a_bad_template_is_refused_naming_file_and_field(tmp_path: Path, text: str, problem: str) -> None:
    """Each mistake gives one sentence with the file, the field, what it holds and what was expected."""
    file = tmp_path / "t.yaml"
    file.write_text(text)
    field, _, words = problem.partition(" ")
    where = file if field == "is" else f"field {field} of {file}"
    assert refusal(file) == [f"WORKER_TEMPLATE: {where} {problem if field == 'is' else words}"]
    assert "expected" in problem


def test_workers_are_not_selected_as_the_scaler_itself(tmp_path: Path) -> None:
    """The label by which the chart selects the scaler's pods, or its Redis, is refused; others are not."""
    for name in ("ottoscaler", "build-1", "redis"):
        (tmp_path / f"{name}.yaml").write_text(GOOD.replace("{spec", f"{{metadata: {{labels: {{app: {name}}}}}, spec"))
    settings = load_settings({}, {"INSTANCE_NAME": "build-1", "REDIS_HOST": "redis"})
    with pytest.raises(SettingsError) as caught:
        load_templates(str(tmp_path), settings.own_apps)
    expected = "expected another value: the Service and the policies of the pods called so would select workers"
    assert caught.value.problems == [
        f"WORKER_TEMPLATE: field template.metadata.labels[app] of {tmp_path}/{name}.yaml is {name!r}, {expected}"
        for name in ("build-1", "redis")
    ]
    assert load_templates(str(tmp_path / "ottoscaler.yaml"), settings.own_apps).names == {"ottoscaler"}


def test_all_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    """Nobody has to start the scaler five times to mend five mistakes."""
    (tmp_path / "a.yaml").write_text("- a")
    (tmp_path / "b.yaml").write_text(of("{containers: [{image: 5}]}"))
    (tmp_path / "b.yml").write_text(GOOD)
    assert refusal(tmp_path) == [
        f"WORKER_TEMPLATE: {tmp_path}/b.yml is a second template with the name 'b', expected one",
        f"WORKER_TEMPLATE: {tmp_path}/a.yaml is no mapping, expected a v1 PodTemplate",
        f"WORKER_TEMPLATE: field {SPEC}[0].name of {tmp_path}/b.yaml is missing, expected a name",
        f"WORKER_TEMPLATE: field {SPEC}[0].image of {tmp_path}/b.yaml is 5, expected a text",
    ]


def test_a_missing_or_empty_place_is_refused(tmp_path: Path) -> None:
    """A path that is neither file nor folder, or a folder without templates, is a mistake."""
    assert refusal(tmp_path / "x") == [f"WORKER_TEMPLATE: {tmp_path}/x does not exist, expected a file or a folder"]
    assert refusal(tmp_path) == [
        f"WORKER_TEMPLATE: {tmp_path} is a folder without templates, expected *.yaml, *.yml, *.json"
    ]
