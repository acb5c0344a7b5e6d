"""When two requests are the same: what their JSON asks for counts, not how it is written."""

from __future__ import annotations

from contextlib import aclosing

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.calls.pipeline_entry import pipeline_pairs
from ottoscaler.events import Limits
from ottoscaler.repeats import content_of
from ottoscaler.rpc.door import PipelineCall, RetryCall, StageCall
from ottoscaler.stages import dump_pipeline, parse_pipeline
from tests.calls.house import open_house

BUILD = StageCall(stage_id="build", worker_count=2)
DEPLOY = StageCall(stage_id="deploy", worker_count=1, depends_on=("build",))
WAYS = (
    ("otto.spec", '{"image":"i","timeout_seconds":60}', '{ "timeout_seconds": 60, "command": null, "image": "i" }'),
    ("otto.spec", '{"retry":{"retry_delay_seconds":2.0}}', '{"retry": {"retry_delay_seconds": 2}}'),
    (
        "otto.pipeline",
        '{"pipeline_id":"p","stages":[{"stage_id":"a","worker_count":1,"config":{"x":"1","y":"2"}}]}',
        '{"stages": [{"worker_count": 1, "stage_id": "a", "config": {"y": "2", "x": "1"}, "depends_on": []'
        ', "type": ""}], "name": "", "pipeline_id": "p"}',
    ),
    (
        "otto.pipeline",
        '{"pipeline_id":"p","stages":[{"stage_id":"a","worker_count":1,"retry_policy":{"max_attempts":2}}]}',
        '{"pipeline_id": "p", "stages": [{"stage_id": "a", "worker_count": 1, "timeout_seconds": 0,'
        ' "retry_policy": {"max_attempts": 2, "retry_delay_seconds": null}}]}',
    ),
)
OTHERS = (
    ("otto.spec", '{"command":[]}', "{}"),
    ("otto.spec", '{"command":["a","b"]}', '{"command":["b","a"]}'),
    (
        "otto.pipeline",
        '{"pipeline_id":"p","stages":[{"stage_id":"a","worker_count":1},{"stage_id":"b","worker_count":1}]}',
        '{"pipeline_id":"p","stages":[{"stage_id":"b","worker_count":1},{"stage_id":"a","worker_count":1}]}',
    ),
    (
        "otto.pipeline",
        '{"pipeline_id":"p","stages":[{"stage_id":"a","worker_count":1,"command":[]}]}',
        '{"pipeline_id":"p","stages":[{"stage_id":"a","worker_count":1}]}',
    ),
    ("otto.spec", "no JSON", "none either"),
)


@pytest.mark.parametrize(("name", "one", "other"), WAYS)
def test_json_is_the_same_however_it_is_written(name: str, one: str, other: str) -> None:
    """Order, spaces, null and defaults that are written out ask for nothing else; the hash to keep is the same."""
    assert content_of([(name, one)]).split()[0] == content_of([(name, other)]).split()[0]


@pytest.mark.parametrize(("name", "one", "other"), OTHERS)
def test_json_that_asks_for_something_else_is_another_request(name: str, one: str, other: str) -> None:
    """Another order of words or of stages, or the image's own command instead of the setting's, are not the same."""
    assert not set(content_of([(name, one)]).split()) & set(content_of([(name, other)]).split())


async def test_a_call_is_written_in_the_one_form() -> None:
    """What a call puts on the stream is compared as earlier versions compared it: as it is written."""
    retry = RetryCall(max_attempts=2, retry_delay_seconds=3, retryable_failures=("OutOfMemory",))
    whole = StageCall(
        stage_id="s",
        type="test",
        name="S",
        worker_count=2,
        depends_on=("build",),
        config={"b": "1", "a": "2"},
        image="i",
        command=("c",),
        args=("d", "e"),
        timeout_seconds=5,
        retry=retry,
    )
    for stages in ((BUILD, DEPLOY), (BUILD, whole)):
        pairs = await pipeline_pairs(PipelineCall(pipeline_id="p", stages=stages), Limits(), 1.0)
        text = dict(pairs)["otto.pipeline"]
        assert dump_pipeline(parse_pipeline(text)) == text
        assert len(content_of(pairs).split()) == 1


async def test_an_entry_and_a_call_of_the_same_pipeline_are_one(autojump_clock: MockClock) -> None:
    """A call joins the pipeline that somebody put on the stream in his own way of writing it."""
    async with open_house() as house:
        one = await house.open()
        build = '{"worker_count": 2, "stage_id": "build"}'
        deploy = '{"depends_on": ["build"], "worker_count": 1, "stage_id": "deploy"}'
        text = f'{{ "stages": [{build}, {deploy}], "pipeline_id": "p" }}'
        house.server.add_entry((("type", "pipeline"), ("otto.pipeline", text)))
        await trio.sleep(0.5)
        call = PipelineCall(pipeline_id="p", stages=(BUILD, DEPLOY))
        async with aclosing(one.calls.execute_pipeline(call, lambda: False)) as told:
            ends = {news.stage_id: news.status async for news in told}
        assert ends == {"build": "completed", "deploy": "completed"}
        assert house.workers_run == 3
