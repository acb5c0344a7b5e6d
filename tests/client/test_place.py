"""Where the handler is and who we are, as the environment says it, and what is said where it is wrong."""

from __future__ import annotations

import os

import anyio
import pytest

from ottoscaler.client import Handler, Statistics, Worker, WrongSetting, handler_from, open_log_stream, worker_from


def test_place_and_name_are_found_in_the_environment() -> None:
    """The environment of a worker pod says where the handler is and who we are; a token is not shown."""
    environ = {
        "OTTO_HANDLER_HOST": "otto-handler:8080",
        "OTTO_HANDLER_TLS": "true",
        "OTTO_HANDLER_CA": "/ca.pem",
        "OTTO_HANDLER_TOKEN": "secret",
        "OTTO_TASK_ID": "t",
        "OTTO_EVENT_ID": "1-0",
        "OTTO_WORKER_INDEX": "2",
        "OTTO_ATTEMPT": "1",
        "HOSTNAME": "otto-agent-2-1-0",
    }
    handler = handler_from(environ)
    assert handler == Handler("otto-handler:8080", tls=True, ca="/ca.pem", token="secret")
    assert "secret" not in repr(handler)
    assert handler_from({}) is None
    labels = {"event_id": "1-0", "index": "2", "attempt": "1"}
    assert worker_from(environ) == Worker("otto-agent-2-1-0", task_id="t", labels=labels)
    assert worker_from({**environ, "POD_NAME": "p"}).worker_id == "p"
    assert worker_from({}).worker_id == os.uname().nodename


HOST_AND_PORT = "expected host and port, such as otto-handler:8080"
WRONG = [
    ({"OTTO_HANDLER_TLS": "ja"}, "OTTO_HANDLER_TLS is 'ja': expected true or false"),
    *(
        (
            {"OTTO_HANDLER_HOST": host},
            f"OTTO_HANDLER_HOST is {host!r}: expected host and port, such as otto-handler:8080",
        )
        for host in ("h", "h:0", "h:75616", "h:" + "8" * 5000, "h:\u0663")
    ),
    ({"OTTO_HANDLER_HOST": "h\udcff:1"}, r"OTTO_HANDLER_HOST is 'h\xff:1': expected UTF-8"),
    ({"OTTO_TASK_ID": "t\udce9"}, r"OTTO_TASK_ID is 't\xe9': expected UTF-8"),
    ({"HOSTNAME": "\udcff"}, r"HOSTNAME is '\xff': expected UTF-8"),
    ({"OTTO_EVENT_ID": "\udcff"}, r"OTTO_EVENT_ID is '\xff': expected UTF-8"),
    *(
        ({"OTTO_HANDLER_TOKEN": token}, "OTTO_HANDLER_TOKEN is no token: expected one line of visible ASCII characters")
        for token in ("hidden\nsecret", "geh\xe9im", "hidden\udcff")
    ),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG)
def test_a_wrong_variable_is_said_and_the_program_runs(wrong: dict[str, str], said: str) -> None:
    """Variable, value (never a token) and what was expected are told at once; nothing is sent, and nobody waits."""
    environ = {"OTTO_HANDLER_HOST": "127.0.0.1:1", "HOSTNAME": "otto-agent-1", **wrong}
    told: list[str] = []

    async def program() -> Statistics:
        async with open_log_stream(environ=environ, tell=told.append) as logs:
            await logs.send("x")
            await logs.flush()
        return logs.statistics()

    assert anyio.run(program) == Statistics(acknowledged=0, dropped=0, left_out=1, waiting=0)
    assert told == [said]


def test_a_token_that_no_call_can_carry_is_refused() -> None:
    """A program that gives such a token itself learns it at once."""
    with pytest.raises(WrongSetting, match="expected one line of visible ASCII characters"):
        Handler("127.0.0.1:1", token="two\nlines")


@pytest.mark.parametrize("address", ["h:1", "[::1]:1", "dns:///h", "unix:/run/otto.sock"])
def test_the_switch_and_addresses(address: str) -> None:
    """What means yes and no, and what gRPC takes for an address."""
    for text, tls in (("on", True), ("TRUE", True), ("0", False), ("no", False), (" ", False)):
        found = handler_from({"OTTO_HANDLER_HOST": address, "OTTO_HANDLER_TLS": text})
        assert found == Handler(address, tls=tls)
