"""The policy: what its file may say, what it lets events ask for, and that it fails closed."""

from __future__ import annotations

import ast
import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottoscaler.drain import Drain
from ottoscaler.errors import SettingsError
from ottoscaler.events import Event
from ottoscaler.kube.manifest import WorkerDefaults, WorkerIdentity, build_pod
from ottoscaler.patterns import matches
from ottoscaler.policy import Policy, _one_of
from ottoscaler.policy_file import PolicyFile, Rules, parse_rules
from ottoscaler.refusals import REFUSALS
from ottoscaler.service import serve
from ottoscaler.settings import load_settings
from ottoscaler.spec import Retry, Spec, parse_spec

OWN = frozenset({"busybox:latest"})
WHOLE = """
version: 1
images: ["registry.example.com/team/*", "python:3.1*"]
commands:
  - [make, ...]
  - [sh, -c, "echo **"]
  - [ENTRYPOINT, --shard, "*"]
ceilings: {cpu: "2", memory: 4Gi, workers: 100, timeout_seconds: 3600}
"""
TEMPLATES: dict[str, dict[str, Any]] = {
    "huge": {"spec": {"containers": [{"name": "worker", "resources": {"limits": {"cpu": 64, "memory": "1Gi"}}}]}},
    "endless": {"spec": {"containers": [{"name": "worker", "resources": {"requests": {"cpu": 1}}}]}},
    "nought": {"spec": {"containers": [{"name": "worker", "resources": {"limits": {"cpu": "0", "memory": "1Gi"}}}]}},
    "slow": {"spec": {"containers": [{"name": "worker"}], "activeDeadlineSeconds": 7200}},
    "odd": {"spec": {"containers": [{"name": "worker"}], "activeDeadlineSeconds": "soon"}},
}


def event(spec: Spec | None = None, *, workers: int = 1, template: str = "", type: Any = "scale_up") -> Event:
    """An event that asks for this."""
    return Event("5-0", type, workers, spec=spec, template=template)


def policy_of(file: PolicyFile) -> Policy:
    """The policy of a service with the settings' defaults and these templates."""

    def build(event: Event, index: int, attempt: int) -> Mapping[str, Any]:
        identity = WorkerIdentity(event.id, index, event.pod_count, attempt, "i1", "e1")
        defaults = WorkerDefaults(timeout_seconds=file.rules.ceilings.timeout_seconds)
        return build_pod(identity, defaults, TEMPLATES.get(event.template), event.spec)

    return Policy(file, OWN, build)


def written(path: Path, text: str) -> Path:
    """A file that was changed long enough ago."""
    path.write_text(text)
    os.utime(path, (1_000_000, 1_000_000 + len(text)))
    return path


@pytest.fixture
def whole(tmp_path: Path) -> Policy:
    """The policy of a file that says everything."""
    return policy_of(PolicyFile(str(written(tmp_path / "policy.yaml", WHOLE))))


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("busybox*", "busybox:1.36", True),
        ("busybox*", "busybox.example.com/evil", False),
        ("a/*", "a/b:1@sha256:00", True),
        ("a/*", "a/b/c", False),
        ("a/**", "a/b/c", True),
        ("**/c", "a/b/c", True),
        ("*", "", True),
        ("a*b*c", "axbxbxc", True),
        ("a*b*c", "axbxbx", False),
        ("a.c", "abc", False),
        ("", "", True),
        ("", "a", False),
    ],
)
def test_a_star_stops_at_a_slash(pattern: str, text: str, fits: bool) -> None:
    """One star is any text without a slash, two are any text; all else stands for itself."""
    assert matches(pattern, text) is fits


@given(st.text("ab/*\n", max_size=8), st.text("ab/*\n", max_size=8))
def test_patterns_mean_what_the_same_regular_expression_means(pattern: str, text: str) -> None:
    """Judged beside Python's own engine."""
    parts = (
        re.escape(part) if part[0] != "*" else "[^/]*" if len(part) == 1 else ".*"
        for part in re.findall(r"\*+|[^*]", pattern, re.DOTALL)
    )
    assert matches(pattern, text) == bool(re.fullmatch("".join(parts), text, re.DOTALL))


def test_no_text_keeps_a_pattern_busy() -> None:
    """A text made to be tried again and again is judged as fast as any other; a usual engine would need years."""
    assert not matches("*a" * 20 + "b", "a" * 60_000)


def test_without_a_file_only_images_of_settings_and_templates_may_be_asked_for() -> None:
    """Any command, arguments, time and retries are fine; an image of one's own is not."""
    policy = policy_of(PolicyFile(None))
    asked = Spec(command=("sh", "-c", "x"), args=("y",), timeout_seconds=2**31 - 1, retry=Retry(max_attempts=100))
    assert policy.judge(event()) is None
    assert policy.judge(event(asked, workers=10_000)) is None
    assert policy.judge(event(Spec(image="busybox:latest"))) is None
    assert policy.judge(event(template="huge")) is None
    assert policy.judge(event(Spec(image="evil:1"))) == "field otto.spec.image is 'evil:1', expected busybox:latest"


@pytest.mark.parametrize(
    "asked",
    [
        None,
        Spec(),
        Spec(image="registry.example.com/team/app:1"),
        Spec(image="python:3.13"),
        Spec(image="busybox:latest"),
        Spec(command=("make",)),
        Spec(command=("make", "-j2", "a/b")),
        Spec(command=("make",), args=("test",)),
        Spec(command=("sh", "-c", "echo a/b; exit 1")),
        Spec(args=("--shard", "3")),
        Spec(command=(), args=("--shard", "3")),
        Spec(timeout_seconds=3600),
        Spec(retry=Retry(max_attempts=100)),
    ],
)
def test_what_the_file_allows_may_be_asked_for(whole: Policy, asked: Spec | None) -> None:
    """Images by pattern, commands word by word with their arguments, and all that stays below the ceilings."""
    assert whole.judge(event(asked, workers=100)) is None


ALLOWED_COMMANDS = "make ..., sh -c echo **, ENTRYPOINT --shard *"


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (
            {"spec": Spec(image="registry.example.com/team/deep/app")},
            "field otto.spec.image is 'registry.example.com/team/deep/app', expected one of busybox:latest, "
            "registry.example.com/team/*, python:3.1*",
        ),
        (
            {"spec": Spec(command=("rm", "-rf"))},
            f"field otto.spec.command is 'rm -rf', expected one of {ALLOWED_COMMANDS}",
        ),
        (
            {"spec": Spec(command=("make test",))},
            f"field otto.spec.command is 'make test', expected one of {ALLOWED_COMMANDS}",
        ),
        (
            {"spec": Spec(command=("ENTRYPOINT", "--shard", "1"))},
            f"field otto.spec.command is 'ENTRYPOINT --shard 1', expected one of {ALLOWED_COMMANDS}",
        ),
        ({"spec": Spec(args=("make",))}, f"field otto.spec.args is 'make', expected one of {ALLOWED_COMMANDS}"),
        ({"spec": Spec(command=())}, f"field otto.spec.command is empty, expected one of {ALLOWED_COMMANDS}"),
        (
            {"spec": Spec(command=("make", "$(OTTO_META_X)"))},
            "field otto.spec.command is 'make $(OTTO_META_X)', expected no $(OTTO_...) in it, because commands are "
            "restricted",
        ),
        (  # the sender's, too
            {"spec": Spec(args=("--shard", "$(TRACESTATE)"))},
            "field otto.spec.args is '--shard $(TRACESTATE)', expected no $(TRACESTATE) in it, because commands are "
            "restricted",
        ),
        ({"workers": 101}, "field pod_count is '101', expected at most 100 (ceilings.workers)"),
        (
            {"spec": Spec(timeout_seconds=3601)},
            "field otto.spec.timeout_seconds is 3601, expected at most 3600 (ceilings.timeout_seconds)",
        ),
        (
            {"template": "slow"},
            "field template is 'slow', which makes a pod with activeDeadlineSeconds 7200, expected at most 3600 "
            "(ceilings.timeout_seconds)",
        ),
        (
            {"template": "odd"},
            "field template is 'odd', which makes a pod with activeDeadlineSeconds 'soon', expected at most 3600 "
            "(ceilings.timeout_seconds)",
        ),
        (
            {"template": "huge"},
            "field template is 'huge', which makes a pod with cpu 64, expected at most 2 (ceilings.cpu)",
        ),
        (
            {"template": "endless"},
            "field template is 'endless', which makes a pod with no limit of cpu, expected at most 2 (ceilings.cpu)",
        ),
        (
            {"template": "nought"},  # a limit of 0 is none to Kubernetes
            "field template is 'nought', which makes a pod with no limit of cpu, expected at most 2 (ceilings.cpu)",
        ),
    ],
)
def test_what_goes_beyond_the_file_is_refused(whole: Policy, asked: dict[str, Any], reason: str) -> None:
    """The reason names the field, its value and what is allowed."""
    assert whole.judge(event(**asked)) == reason


def test_a_time_that_the_event_shortens_is_below_the_ceiling(whole: Policy) -> None:
    """What is judged is the pod that would be made."""
    assert whole.judge(event(Spec(timeout_seconds=60), template="slow")) is None


def test_a_file_that_changes_again_at_once_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second change within one tick of the file system's clock, of the same size, is seen although no time tells."""
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\nimages: [i1]\n")
    stands = path.stat()
    monkeypatch.setattr(Path, "stat", lambda *_, **__: stands)
    file = PolicyFile(str(path), now=lambda: stands.st_mtime + 0.5)
    for image in ("i2", "i3"):
        path.write_text(f"version: 1\nimages: [{image}]\n")
        file.look()
        assert file.rules.images == (image,)


def test_stopping_is_not_judged(whole: Policy) -> None:
    """A policy says what may be started."""
    assert whole.judge(event(type="scale_down", workers=10_000)) is None


def test_all_containers_count() -> None:
    """A pod may take what its containers take together, beside its sidecars, or what an init container takes."""
    one, two = ({"name": n, "resources": {"limits": {"cpu": c}}} for n, c in (("worker", "1500m"), ("beside", "1")))
    rules = b"version: 1\nceilings: {cpu: 2}\n"
    for spec, total in (
        ({"containers": [one, two]}, "2.5"),
        ({"containers": [one], "initContainers": [two | {"restartPolicy": "Always"}]}, "2.5"),
        ({"containers": [one], "initContainers": [two]}, None),
        ({"containers": [two], "initContainers": [{"name": "i", "resources": {"limits": {"cpu": "3"}}}]}, "3"),
    ):
        file = PolicyFile(None)
        file.rules = parse_rules(rules, "f")
        reason = Policy(file, OWN, lambda *_, spec=spec: {"spec": spec}).judge(event(template="t"))
        assert (reason is None) if total is None else (reason and f"cpu {total}, expected at most 2" in reason)


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ["is None, expected a mapping of version, images, commands, ceilings"]),
        ("version: 2", ["version is '2', expected 1"]),
        ("images: []", ["version is missing, expected 1"]),
        ("version: 1\nimage: [a]", ["image is unknown, expected version, images, commands, ceilings"]),
        ("version: 1\nimages: a", ["images is 'a', expected a list of texts"]),
        ("version: 1\nimages: [[a]]", ["images[0] is ['a'], expected a text"]),
        ("version: 1\ncommands: [make]", ["commands[0] is 'make', expected a list of texts"]),
        (
            "version: 1\ncommands: [[...], [a, ..., b], []]",
            [f"commands[{i}] is {s}, expected words, and ... as the last only" for i, s in enumerate(
                ("['...']", "['a', '...', 'b']", "[]"))],
        ),
        (
            "version: 1\nceilings: {cpu: much, memory: 0, workers: 1.5, timeout_seconds: [], gpu: 1}",
            [
                "ceilings.gpu is unknown, expected cpu, memory, timeout_seconds, workers",
                "ceilings.cpu is 'much', expected a Kubernetes quantity of at least 1m, such as 500m",
                "ceilings.memory is '0', expected a Kubernetes quantity of at least 1, such as 128Mi",
                "ceilings.workers is '1.5', expected a whole number from 1 to 1000000",
                "ceilings.timeout_seconds is [], expected a whole number from 1 to 2147483647",
            ],
        ),
        ("version: 1\nimages: [a]\nimages: [b]", ["is not YAML: line 3, column 1: 'images' is given twice"]),
        ("a: [", ["is not YAML: line 1, column 5: expected the node content, but found '<stream end>'"]),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_field_by_field(text: str, problems: list[str]) -> None:
    """Every problem at once, each naming file and field."""
    with pytest.raises(SettingsError) as caught:
        parse_rules(text.encode(), "p.yaml")
    assert caught.value.problems == [f"POLICY_FILE: p.yaml: {problem}" for problem in problems]


@given(st.binary() | st.text("version: 1\nimagescod[]{}-,*&!|>'\"#%@`").map(str.encode))
def test_any_file_is_rules_or_problems(text: bytes) -> None:
    """Whatever stands in the file, it is read or told to be wrong."""
    try:
        assert isinstance(parse_rules(text, "p.yaml"), Rules)
    except SettingsError as error:
        problems = error.problems
    else:
        problems = ["POLICY_FILE: p.yaml: "]
    assert all(problem.startswith("POLICY_FILE: p.yaml: ") for problem in problems)


@pytest.mark.parametrize("text", [None, "version: 1\nimages: a"])
async def test_a_policy_that_cannot_be_used_at_the_start_ends_it(tmp_path: Path, text: str | None) -> None:
    """A file that is missing or wrong is a wrong setting, which ends the service before it begins."""
    path = tmp_path / "p.yaml"
    if text is not None:
        path.write_text(text)
    settings = load_settings({"REDIS_URL": "memory://", "POLICY_FILE": str(path)})
    with pytest.raises(SettingsError) as caught:
        await serve(settings, Drain(0.0, armed=False))
    missing = f"POLICY_FILE is '{path}', expected a file that can be read (No such file or directory)"
    wrong = f"POLICY_FILE: {path}: images is 'a', expected a list of texts"
    assert (missing if text is None else wrong) in caught.value.problems


def test_a_file_that_becomes_wrong_refuses_whatever_is_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Events that ask for nothing go on, below the ceilings of before; one line tells it, one that it is over."""
    path = written(tmp_path / "p.yaml", WHOLE)
    policy = policy_of(PolicyFile(str(path)))
    asked = event(Spec(command=("make",)))
    assert policy.judge(asked) is None
    written(path, WHOLE + "images: []\n")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert policy.judge(asked) == (
                'field otto.spec is {"command":["make"]}, expected none while the policy cannot be used (POLICY_FILE: '
                f"{path}: is not YAML: line 9, column 1: 'images' is given twice)"
            )
        assert policy.judge(event()) is None
        assert policy.judge(event(workers=101)) == "field pod_count is '101', expected at most 100 (ceilings.workers)"
        path.unlink()
        assert "expected a file that can be read" in (policy.judge(asked) or "")
        written(path, WHOLE)
        assert policy.judge(asked) is None
    assert [record.message for record in caplog.records] == [
        "policy cannot be used: whatever asks for more than the defaults is refused",
        "policy cannot be used: whatever asks for more than the defaults is refused",
        "policy can be used again",
    ]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """The next event is judged by what the file says now, even where it changed a moment ago and kept its size."""
    path = tmp_path / "p.yaml"
    path.write_text("version: 1\nimages: [a]")
    policy = policy_of(PolicyFile(str(path)))
    for image in "bcdefgh":
        path.write_text(f"version: 1\nimages: [{image}]")
        assert policy.judge(event(Spec(image=image))) is None
    assert policy.judge(event(Spec(image="a"))) is not None


def test_a_file_that_stays_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it has settled only its stamp is looked at."""
    file = PolicyFile(str(written(tmp_path / "p.yaml", WHOLE)), now=lambda: time.time() + 10)
    file.look()
    monkeypatch.setattr(PolicyFile, "_read", lambda self: pytest.fail("read again"))
    file.look()


DOCS = Path(__file__).parents[1] / "docs" / "policy.md"
PACKAGE = Path(__file__).parents[1] / "ottoscaler"


def test_the_examples_of_the_docs_can_be_used() -> None:
    """The file and the spec that docs/policy.md shows are read as they stand there."""
    text = DOCS.read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert parse_rules(example.encode(), "docs").ceilings.workers == 100
    (spec,) = re.findall(r"otto\.spec '(.*?)'", text)
    assert parse_spec(spec).command == ("make", "test")


def test_the_docs_name_every_cause_of_a_dead_letter() -> None:
    """The table of docs/policy.md is complete."""
    used = {
        argument.value
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("BadEntry", "_RefusedError")
        for argument in node.args[:2]
        if isinstance(argument, ast.Constant) and re.fullmatch(r"[A-Za-z0-9]+", str(argument.value))
    }
    table = DOCS.read_text().partition("## Why an entry is refused")[2]
    assert used == set(REFUSALS)
    assert used <= set(re.findall(r"`([A-Z][A-Za-z0-9]+)`", table))


def test_a_refusal_names_ten_patterns_at_most() -> None:
    """A policy of a thousand patterns makes no sentence of a thousand: what is more is counted."""
    assert _one_of([f"p{number}" for number in range(12)]) == "one of p0, p1, p2, p3, p4, p5, p6, p7, p8, p9 and 2 more"
    assert _one_of([f"p{number}" for number in range(10)]).endswith("p8, p9")
