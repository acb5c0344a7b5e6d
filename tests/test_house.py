"""The rules of the house, checked by reading the code: layers, sizes, names, and that nothing points outside."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ottoscaler"
GENERATED = PACKAGE / "rpc" / "v1"  # written by protoc, which has rules of its own
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if GENERATED not in path.parents)
FORBIDDEN_NAMES = {"util", "utils", "common", "helpers", "types", "constants", "misc"}

LAYERS = (
    # words and tools: know nothing of the rest
    "secret errors backoff parsing settings log signals pods events fleet fair outcomes causes spec stages "
    "retries verdicts pod_warnings refusals repeats trace_context timestamps "
    "startup drain supervisor throttle garbage metrics termination_log stepwise",
    # boundaries, which know nothing of each other
    "stream kube",
    # the spine, and what it is judged, counted and seen by
    "patterns policy_file policy spine pipelines gauges health outages web",
    # doors for programs
    "rpc calls logs tracing",
    # the root
    "service",
    # the other ends of the wire: of ours they know its messages
    "client otto_handler",
    # knows nothing of ours
    "localcluster",
    # doors for people
    "cli __main__",
)
FAR_ENDS = {"client", "otto_handler"}
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names.split()}


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@functools.cache
def _imports(path: Path) -> tuple[str, ...]:
    return tuple(_list_imports(ast.parse(path.read_text())))


def _list_imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _room(module: str) -> str | None:
    """`ottoscaler.stream.redis` → `stream`; None for what is not ours, and for the package itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "ottoscaler" and len(parts) > 1 and parts[1] in LEVEL else None


@pytest.mark.parametrize("path", MODULES, ids=_module)
def test_imports_point_inwards(path: Path) -> None:
    """A room imports its own layer or lower ones; the local cluster imports nothing of ours."""
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if here == "__init__":
        assert not list(_imports(path))
        return
    assert here in LEVEL, f"{here} has no layer yet"
    for there in filter(None, map(_room, _imports(path))):
        if here == "localcluster":
            assert there == "localcluster"
        elif here in FAR_ENDS and there != here:
            assert there == "rpc", f"{here} imports {there}"
        elif there == "localcluster":
            assert here == "cli"
        elif here != there:
            assert LEVEL[there] <= LEVEL[here], f"{here} imports {there}"
            assert {here, there} != {"stream", "kube"}, "the two boundaries know nothing of each other"


@pytest.mark.parametrize("path", sorted((PACKAGE / "rpc" / "http2").glob("*.py")), ids=_module)
def test_http2_knows_no_rpc(path: Path) -> None:
    """What carries calls imports nothing of what they are about, but for the words in which one is refused."""
    known = ("ottoscaler.errors", "ottoscaler.log", "ottoscaler.rpc.door", "ottoscaler.rpc.http2")
    assert all(name.startswith(known) for name in _imports(path) if name.startswith("ottoscaler"))


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("httpx", {"kube"}),
        ("redis", {"stream"}),
        ("hiredis", {"stream"}),
        ("threading", {"stream", "client", "otto_handler"}),
        ("grpc", {"client", "otto_handler", "cli"}),
        ("rich", {"cli"}),
        ("prometheus_client", {"metrics", "gauges"}),
        ("h11", {"web"}),
        ("h2", {"rpc", "localcluster"}),
        ("opentelemetry", {"tracing"}),
        ("starlette", {"localcluster"}),
        ("hypercorn", {"localcluster"}),
        ("psutil", {"localcluster", "cli"}),
    ],
)
def test_libraries_stay_in_their_rooms(library: str, rooms: set[str]) -> None:
    """What talks to the world outside is imported at its boundary only."""
    users = {
        path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for path in MODULES
        if any(name.split(".")[0] == library for name in _imports(path))
    }
    assert users <= rooms


def test_threads_are_started_where_libraries_need_them_only() -> None:
    """Everything else is a Trio task."""
    users = {_module(path) for path in MODULES if "to_thread" in path.read_text()}
    # tracing: OpenTelemetry's flush has no limit of its own, so it is given one outside of the loop
    assert {module.split(".")[1] for module in users} <= {"stream", "client", "localcluster", "tracing"}


@pytest.mark.parametrize("path", [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))], ids=_module)
def test_modules_are_small_and_named_for_their_duty(path: Path) -> None:
    """No module has more than 400 lines, none is called by a word that says nothing."""
    assert len(path.read_text().splitlines()) <= 400
    assert path.stem not in FORBIDDEN_NAMES


def test_functions_are_short() -> None:
    """Half of all functions have at most 8 lines, nine in ten at most 30, docstrings included."""
    lengths = sorted(
        (node.end_lineno or 0) - node.lineno + 1
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert lengths[len(lengths) // 2] <= 8
    assert lengths[len(lengths) * 9 // 10] <= 30


@pytest.mark.parametrize("path", MODULES, ids=_module)
def test_shields_have_a_limit(path: Path) -> None:
    """Every cancel scope that shields has a deadline in the same call, or says beside it what its limit is."""
    lines = path.read_text().splitlines()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and any(
            keyword.arg == "shield" and getattr(keyword.value, "value", None) is True for keyword in node.keywords
        ):
            called = ast.unparse(node.func)
            has_limit = called.startswith(("trio.move_on_", "trio.fail_", "anyio.move_on_")) or any(
                keyword.arg in ("deadline", "relative_deadline") for keyword in node.keywords
            )
            has_limit = has_limit or "# its limit:" in lines[node.lineno - 1]
            assert has_limit, f"{_module(path)}:{node.lineno} shields without a limit"


@pytest.mark.parametrize("path", MODULES, ids=_module)
def test_cancels_say_why(path: Path) -> None:
    """Every cancel carries a reason."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cancel":
            named = ast.unparse(node.func.value)
            if named.endswith(("scope", "limit", "life", "_reading")):
                assert any(keyword.arg == "reason" for keyword in node.keywords), f"{_module(path)}:{node.lineno}"


def test_every_dependency_says_what_it_is_for() -> None:
    """Beside each dependency in pyproject.toml stands its use."""
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.findall(r'^    "([a-zA-Z0-9_.\[\]-]+)[^"]*",(.*)$', text.split("[project.scripts]")[0], re.MULTILINE)
    bare = [name for name, comment in listed if "#" not in comment and name not in ("ottoscaler[local]",)]
    assert [name for name in bare if not name.startswith(("Framework", "Programming"))] == []
