"""The file of `call pipeline`: what is wrong with it is one sentence with field, value and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottoscaler.cli.calling import WrongCall
from ottoscaler.cli.pipeline_file import read_pipeline
from ottoscaler.kube.yaml_file import read_yaml


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1: x", "1 is 'x', expected one of the fields pipeline_id, name, stages,"),
        ("stages: [{stage_id: a, wokers: 1}]", "stages[0].wokers is 1, expected one of the fields stage_id,"),
        ("[1]: x", "is not YAML"),
        ("name: 7", "name is 7, expected text"),
        ("name: [a]", "name is ['a'], expected text"),
        ("stages: 7", "stages is 7, expected a list"),
        ("stages: [7]", "stages[0] is 7, expected a mapping"),
        ("stages: [null]", "stages[0] is None, expected a mapping"),
        ("stages: [{worker_count: many}]", "stages[0].worker_count is 'many', expected a whole number"),
        ("stages: [{worker_count: true}]", "stages[0].worker_count is True, expected a whole number"),
        ("stages: [{worker_count: 4294967296}]", "stages[0].worker_count is 4294967296, expected a whole number"),
        ("stages: [{command: make}]", "stages[0].command is 'make', expected a list"),
        ("stages: [{args: [1]}]", "stages[0].args[0] is 1, expected text"),
        ("stages: [{config: {PORT: 8080}}]", 'stages[0].config["PORT"] is 8080, expected text, in quotes'),
        ("stages: [{retry_policy: {max_attempts: x}}]", "stages[0].retry_policy.max_attempts is 'x', expected a whole"),
        ("metadata: {1: x}", "a name in metadata is 1, expected text"),
        ("metadata: [a]", "metadata is ['a'], expected a mapping"),
        ("name: !!timestamp 2026-99-99", "is not YAML"),
        ("name: !!int many", "is not YAML"),
        ("name: !!timestamp soon", "is not YAML"),
        ("name: !!bool perhaps", "is not YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    """A wrong name, a value of another type, or a list for a text: field, value and what was expected."""
    file = tmp_path / "i.yaml"
    file.write_text(text)
    with pytest.raises(WrongCall) as caught:
        read_pipeline(file)
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_what_looks_like_a_date_is_a_text(tmp_path: Path) -> None:
    """As Kubernetes has it; both ways of writing a field's name are known, and nothing is what is not given."""
    file = tmp_path / "i.yaml"
    file.write_text("name: 2026-99-99\ncommit_sha: 2026-01-01\nrepository:\nstages: [{stageId: a, worker_count: 1}]")
    request = read_pipeline(file)
    assert (request.name, request.commit_sha, request.stages[0].stage_id) == ("2026-99-99", "2026-01-01", "a")
    file.write_text("a: [2026-01-01, 1, true, 0.5, null, 2026-01-01 10:00:00]")
    assert read_yaml(file) == {"a": ["2026-01-01", 1, True, 0.5, None, "2026-01-01 10:00:00"]}
