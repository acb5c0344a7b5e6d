"""`call`: each rpc as a command, against a real door with a scripted service behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import trio
import trustme

from ottoscaler import signals
from ottoscaler.cli import call_pipeline, main
from ottoscaler.cli.call_pipeline import LiveView, Stages, news_of, read_request
from ottoscaler.cli.calling import Passing, WrongCall
from ottoscaler.rpc.door import (
    InvalidCall,
    PipelineNews,
    RequestMismatch,
    ScaleAnswer,
    StageMetrics,
    StatusAnswer,
    TooMany,
    WorkerStatus,
)
from ottoscaler.rpc.v1.pipeline_pb2 import PipelineProgress, PipelineRequest, PipelineStage
from tests.rpc.stage import open_door

pytestmark = pytest.mark.slow_clock
PORT = "such as 127.0.0.1:9090"
PIPELINE = """
pipeline_id: p-1
stages:
  - {stage_id: build, type: build, worker_count: 2, config: {a: b}, retry_policy: {max_attempts: 3}}
  - {stage_id: test, type: test, worker_count: 1, depends_on: [build]}
"""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command runs in a thread here, where signals cannot be set."""
    monkeypatch.setattr(signals, "restore_signals", lambda: None)
    for name in ("OTTOSCALER_SERVER", "OTTOSCALER_TOKEN"):
        monkeypatch.delenv(name, raising=False)


async def command(*words: str) -> int:
    """Run `ottoscaler call …` in a thread."""
    return await trio.to_thread.run_sync(main, ["call", *words])


async def test_scale_up_says_what_was_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    """Every flag reaches the service; names go to stdout, the sentence to stderr."""
    async with open_door() as scene:
        scene.door.answer = ScaleAnswer(
            status="partial_success", processed_count=1, worker_pod_names=("w-1",), message="one was refused"
        )
        words = "--workers 2 --task T --repository r --commit c --triggered-by me --reason why --config a=b=c"
        words += " --meta d= --request-id id --wait"
        code = await command("scale-up", "--server", f"127.0.0.1:{scene.port}", *words.split())
    (call,) = scene.door.asked
    assert (call.worker_count, call.task_id, call.repository, call.commit_sha) == (2, "T", "r", "c")
    assert (call.triggered_by, call.reason, call.build_config, call.metadata) == ("me", "why", {"a": "b=c"}, {"d": ""})
    assert (call.request_id, call.wait_completed) == ("id", True)
    assert code == 1
    assert capsys.readouterr() == ("w-1\n", "partial success, 1 accepted: one was refused\n")


async def test_scale_down_names_its_target(capsys: pytest.CaptureFixture[str]) -> None:
    """The target is worker_count, 0 is one, and success is exit code 0."""
    async with open_door() as scene:
        scene.door.answer = ScaleAnswer(status="success", processed_count=2, worker_pod_names=("a", "b"))
        assert await command("scale-down", "--server", f"127.0.0.1:{scene.port}", "--target", "0") == 0
    assert scene.door.asked[0].target == 0
    assert capsys.readouterr() == ("a\nb\n", "success, 2 stopped\n")


@pytest.mark.parametrize(("first", "expected"), [("success", 0), ("partial_success", 1), ("failed", 1)])
async def test_a_repeated_call_has_the_exit_code_of_the_first(first: Any, expected: int) -> None:
    """Asked again under its request id, a call that went wrong is not a success."""
    async with open_door() as scene:
        scene.door.answer = ScaleAnswer(status="already_processed", first_status=first)
        words = ("--server", f"127.0.0.1:{scene.port}", "--request-id", "w1")
        assert await command("scale-up", *words, "--workers", "1") == expected
        assert await command("scale-down", *words, "--target", "0") == expected


async def test_status_is_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Workers in columns and counts below, on stderr, with what they lack; with -o json one object per worker."""
    worker = WorkerStatus(pod_name="w-1", status="failed", task_id="T", error_message="OOMKilled")
    async with open_door() as scene:
        scene.door.answer = StatusAnswer(
            total_count=3, failed_count=1, running_count=2, workers=(worker,), is_truncated=True
        )
        server = ("--server", f"127.0.0.1:{scene.port}")
        assert await command("status", *server, "--task", "T", "--pod", "w-1", "--state", "failed") == 0
        out, err = capsys.readouterr()
        assert await command("status", *server, "-o", "json") == 0
    question = scene.door.asked[0]
    assert (question.task_id, question.worker_pod_name, question.status_filter) == ("T", "w-1", "failed")
    assert [re.split(r" {3,}", line) for line in out.splitlines()] == [
        ["NAME", "STATUS", "TASK", "STARTED", "ENDED", "NODE", "ERROR"],
        ["w-1", "failed", "T", "-", "-", "-", "OOMKilled"],
    ]
    counts = "3 workers, 0 pending, 2 running, 0 succeeded, 1 failed, 0 terminated"
    assert err == f"{counts}; older ones were not read back\n"
    assert json.loads(capsys.readouterr().out) == {
        "pod_name": "w-1",
        "status": "failed",
        "task_id": "T",
        "error_message": "OOMKilled",
    }


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            InvalidCall("worker_count", -1, "a number from 1 to 10"),
            2,
            "worker_count is -1, expected a number from 1 to 10",
        ),
        (RequestMismatch("metadata.request_id", "x"), 2, "metadata.request_id 'x' was used before, with other content"),
        (TooMany("too many calls wait"), 1, "127.0.0.1:PORT: too many calls wait"),
        (ValueError("oops"), 1, "127.0.0.1:PORT: a fault of Ottoscaler's own; its log says more (INTERNAL)"),
    ],
)
async def test_a_refusal_is_one_sentence(
    error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the server's details name is what is printed: field, value, expectation; 2 for a wrong call, else 1."""
    async with open_door() as scene:
        scene.door.answer = error
        assert await command("scale-up", "--server", f"127.0.0.1:{scene.port}", "--workers", "1") == code
        assert capsys.readouterr().err == f"ottoscaler: {said.replace('PORT', str(scene.port))}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["scale-up", "--workers", "1", "--meta", "x"], "--meta is 'x', expected NAME=VALUE"),
        (["scale-up", "--workers", "9999999999"], "the number of workers is 9999999999, expected a smaller one"),
        (["status", "--ca", "/nowhere"], "--ca is '/nowhere': No such file or directory"),
        (["status", "--cert", "/x"], "--cert and --key are given together, or not at all"),
        (["status", "--token-file", "/nowhere"], "--token-file is '/nowhere': No such file or directory"),
        (
            ["status", "--server", "scaler"],
            "--server is 'scaler', expected a host name or address with a port, " + PORT,
        ),
        (
            ["status", "--server", "s:99999"],
            "--server is 's:99999', expected a host name or address with a port, " + PORT,
        ),
        (
            ["status", "--ca", __file__],
            f"--ca {__file__}: expected certificates in PEM ...",
        ),
        (["status", "--task", "\udcff"], "an argument is b'\\xff', expected UTF-8 text"),
        (["scale-up", "--workers", "1", "--meta", "a=\udcff"], "an argument is b'a=\\xff', expected UTF-8 text"),
        (["pipeline", "/nowhere"], "/nowhere cannot be read (No such file or directory)"),
    ],
)
async def test_a_mistake_never_reaches_the_server(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong here is one sentence and exit code 2."""
    assert await command(*words) == 2
    shown = capsys.readouterr().err
    assert shown == f"ottoscaler: {said}\n" or (said.endswith("...") and shown.startswith(f"ottoscaler: {said[:-3]}"))


async def test_a_token_that_no_header_can_carry_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two lines, or other letters than ASCII: the file is named, and the server is not asked."""
    (tmp_path / "token").write_text("one\ntwo\n")
    assert await command("status", "--token-file", str(tmp_path / "token")) == 2
    assert capsys.readouterr().err == (
        f"ottoscaler: the token of --token-file {tmp_path}/token is none, "
        "expected one line of visible ASCII characters\n"
    )


async def test_a_server_that_is_away_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody listening: the address, and exit code 1."""
    assert await command("status", "--server", "127.0.0.1:1") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ottoscaler: 127.0.0.1:1: failed to connect")


async def test_tls_client_certificate_and_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With authority, certificate and token the call goes through; without the token it is refused, saying so."""
    authority = trustme.CA()
    served, client = authority.issue_cert("localhost", "127.0.0.1"), authority.issue_cert("me")
    files = {name: tmp_path / name for name in ("ca", "cert", "key", "my-cert", "my-key", "token", "tokens")}
    authority.cert_pem.write_to_path(str(files["ca"]))
    served.cert_chain_pems[0].write_to_path(str(files["cert"]))
    served.private_key_pem.write_to_path(str(files["key"]))
    client.cert_chain_pems[0].write_to_path(str(files["my-cert"]))
    client.private_key_pem.write_to_path(str(files["my-key"]))
    files["token"].write_text("secret\n")
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # sha256 of "secret"
    files["tokens"].write_text(f"- {{name: me, sha256: {digest}, roles: [read]}}\n")
    settings: dict[str, Any] = {"tls_cert": files["cert"], "tls_key": files["key"], "tls_client_ca": files["ca"]}
    async with open_door(tokens_file=files["tokens"], **settings) as scene:
        server = ["--server", f"127.0.0.1:{scene.port}", "--ca", str(files["ca"])]
        server += ["--cert", str(files["my-cert"]), "--key", str(files["my-key"])]
        assert await command("status", *server, "--token-file", str(files["token"])) == 0
        capsys.readouterr()
        assert await command("status", *server) == 2
        assert "a token is missing" in capsys.readouterr().err
        words = ("scale-up", *server, "--token-file", str(files["token"]), "--workers", "1")
        assert await command(*words) == 2
        assert "me has not the role scale" in capsys.readouterr().err


def news(stage: str, status: Any, **more: Any) -> PipelineNews:
    """A change."""
    return PipelineNews(pipeline_id="p-1", stage_id=stage, status=status, **more)


async def test_a_pipeline_is_shown_change_by_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is the request; each change is a line, the summary stands on stderr, and all completed is 0."""
    (tmp_path / "p.yaml").write_text(PIPELINE)
    async with open_door() as scene:
        metrics = StageMetrics(duration_seconds=4, successful_workers=2, total_workers=2)
        scene.door.news = [
            news("build", "running", message="2 workers"),
            news("build", "completed", metrics=metrics),
            news("test", "completed"),
        ]
        words = ("pipeline", str(tmp_path / "p.yaml"), "--server", f"127.0.0.1:{scene.port}")
        assert await command(*words) == 0
        scene.door.news[-1] = news("test", "failed", error_message="OOMKilled")
        out, err = capsys.readouterr()
        assert await command(*words, "--id", "p-2", "--cancel-on-exit") == 1
    (first, second) = scene.door.asked
    assert (first.pipeline_id, first.stages[0].retry.max_attempts, first.ends_with_call) == ("p-1", 3, False)
    assert (second.pipeline_id, second.ends_with_call) == ("p-2", True)
    assert out.splitlines() == [
        "pipeline p-1",
        "build  running  2 workers",
        "build  completed  2/2 workers  4 s",
        "test  completed",
    ]
    assert err == "2 stages: 2 completed\n"
    out, err = capsys.readouterr()
    assert "test  failed  OOMKilled" in out.splitlines()
    assert err == "2 stages: 1 completed, 1 failed\n"


async def test_a_wrong_pipeline_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the server refuses is one sentence, and so is a field that no pipeline has."""
    file = tmp_path / "p.yaml"
    file.write_text(PIPELINE)
    async with open_door() as scene:
        scene.door.answer = InvalidCall("stages[1].depends_on[0]", "x", "the id of another stage")
        assert await command("pipeline", str(file), "--server", f"127.0.0.1:{scene.port}") == 2
    assert capsys.readouterr().err == "ottoscaler: stages[1].depends_on[0] is 'x', expected the id of another stage\n"
    file.write_text("stages: [{stage_id: a, wokers: 1}]")
    assert await command("pipeline", str(file)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "stages[0].wokers is 1, expected one of the fields" in line
    file.write_text("[]")
    with pytest.raises(WrongCall, match="is not a mapping"):
        read_request(file, "", ends_with_call=False)


def test_a_pipeline_without_an_id_gets_one(tmp_path: Path) -> None:
    """Named for its file, and another one each time."""
    file = tmp_path / "nightly.yaml"
    file.write_text("stages: []")
    names = {read_request(file, "", ends_with_call=False).pipeline_id for _ in range(2)}
    assert len(names) == 2
    assert all(re.fullmatch("nightly-[0-9a-f]{8}", name) for name in names)


class Cutting:
    """A server whose stream is cut after so many changes of a script, again and again."""

    def __init__(self, script: list[PipelineProgress], *cuts: int) -> None:
        self.script = script
        self.cuts = list(cuts)
        self.stub = SimpleNamespace(ExecutePipeline=None)

    def stream(self, rpc: Any, request: object) -> Iterator[PipelineProgress]:
        """The script from its beginning, up to the next cut."""
        end = self.cuts.pop(0) if self.cuts else None
        yield from self.script[:end]
        if end is not None:
            raise Passing("away")


def test_a_cut_call_joins_again_and_repeats_nothing() -> None:
    """Each change is given once, over several connections; before the first one a server that is away is an error."""
    script = [PipelineProgress(stage_id=str(number)) for number in range(5)]
    said: list[str] = []
    server: Any = Cutting(script, 2, 2, 4)
    assert list(news_of(server, PipelineRequest(), said.append, lambda seconds: None)) == script
    assert said == ["joining again: away"] * 3
    server = Cutting(script, 0)
    with pytest.raises(Passing):
        list(news_of(server, PipelineRequest(), said.append, lambda seconds: None))
    server = Cutting(script, *[1] * 20)
    with pytest.raises(Passing):
        list(news_of(server, PipelineRequest(), said.append, lambda seconds: None))


def test_ctrl_c_leaves_the_pipeline_and_says_how_to_join(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends the command only; what it says names the id with which the same call joins again."""

    class Interrupted(Cutting):
        def stream(self, rpc: Any, request: object) -> Iterator[PipelineProgress]:
            raise KeyboardInterrupt

    file = tmp_path / "p.yaml"
    file.write_text(PIPELINE)
    server: Any = Interrupted([])
    with pytest.raises(KeyboardInterrupt):
        call_pipeline.run_pipeline(server, file, "", ends_with_call=False)
    assert capsys.readouterr().err == "ottoscaler: pipeline p-1 goes on; to see it again: --id p-1\n"


def test_the_live_table_has_a_row_per_stage() -> None:
    """Stages that nobody spoke of are pending; the newest change of each is what is shown, never as markup."""
    stages = Stages(PipelineRequest(stages=[PipelineStage(stage_id="build"), PipelineStage(stage_id="[red]test")]))
    view = LiveView(stages)
    stages.take(PipelineProgress(stage_id="build", status="STAGE_RUNNING", progress_percentage=50, message="[b]"))
    table = view.table()
    rows = list(zip(*(map(str, column.cells) for column in table.columns), strict=True))
    assert rows == [("build", "running", "", "50%", "", "[b]"), ("[red]test", "pending", "", "", "", "")]


@contextmanager
def paged_server() -> Iterator[tuple[int, list[Any]]]:
    """A bare gRPC server that answers GetWorkerStatus in two pages."""
    from concurrent.futures import ThreadPoolExecutor

    from ottoscaler.rpc.v1.scaling_pb2 import WorkerStatusRequest, WorkerStatusResponse

    asked: list[Any] = []

    def answer(request: WorkerStatusRequest, context: grpc.ServicerContext) -> WorkerStatusResponse:
        asked.append(request)
        worker = {"pod_name": f"w-{len(asked)}", "status": "running"}
        return WorkerStatusResponse(
            total_count=2, running_count=2, workers=[worker], next_page_token="" if request.page_token else "next"
        )

    rpc = grpc.unary_unary_rpc_method_handler(
        answer, WorkerStatusRequest.FromString, WorkerStatusResponse.SerializeToString
    )
    server = grpc.server(ThreadPoolExecutor(2))
    handlers = grpc.method_handlers_generic_handler("ottoscaler.v1.OttoscalerService", {"GetWorkerStatus": rpc})
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port, asked
    server.stop(0).wait()


async def test_all_pages_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    """A status of several pages is one table, the counts are those of the answer."""
    with paged_server() as (port, asked):
        assert await command("status", "--server", f"127.0.0.1:{port}") == 0
    assert [request.page_token for request in asked] == ["", "next"]
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", "w-1", "w-2"]
    assert err.startswith("2 workers, ")


def test_the_view_fits_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    """Where stdout is no terminal changes are lines."""
    with call_pipeline.open_view(Stages(PipelineRequest())) as view:
        view.show(PipelineProgress(stage_id="a", status="STAGE_SKIPPED", message="build failed"))
    assert capsys.readouterr().out == "a  skipped  build failed\n"
