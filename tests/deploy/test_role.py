"""The Role as shipped, enforced by the local cluster: it suffices for all that the scaler does, and lacks nothing that
`check` would not name.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ottoscaler.cli.check import Finding, look_at_kubernetes
from ottoscaler.cli.playground import find_free_port
from ottoscaler.settings import load_settings
from tests.deploy.helm import CHART, ROOT, objects_of
from tests.process.bench import Place, open_bench

pytestmark = [pytest.mark.process, pytest.mark.slow_clock]
ROLE = objects_of((CHART.parent / "ottoscaler.yaml").read_text())["Role", "ottoscaler"]
RIGHTS = [(rule["resources"][0], verb) for rule in ROLE["rules"] for verb in rule["verbs"]]
ACCOUNT = "system:serviceaccount:default:ottoscaler"


def role_without(resource: str, verb: str) -> dict[str, Any]:
    """The Role with one verb less."""
    role = copy.deepcopy(ROLE)
    (rule,) = (each for each in role["rules"] if each["resources"] == [resource])
    rule["verbs"].remove(verb)
    return dict(role)


async def bind(place: Place, role: dict[str, Any], folder: Path) -> str:
    """Bind a new account to a Role in the place's namespace; the path of its kubeconfig."""
    token = f"token-{len(list(folder.iterdir()))}-of-{place.namespace}"
    body = {"token": token, "name": f"{ACCOUNT}-{token}", "role": role, "namespace": place.namespace}
    assert (await place.cluster.client.post("/faults/users", json=body)).status_code == 200
    config = yaml.safe_load(place.cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    path = folder / token
    path.write_text(yaml.safe_dump(config))
    return str(path)


@asynccontextmanager
async def open_place(tmp_path: Path) -> AsyncIterator[Place]:
    """A bench with one place."""
    (tmp_path / "servers").mkdir()
    async with open_bench(tmp_path / "servers") as bench, bench.place() as place:
        yield place


async def test_the_role_suffices(tmp_path: Path) -> None:
    """With exactly these rights: events to their end, a scale_down, a takeover after a kill, pods deleted one by one
    and together, logs followed, warnings watched; the API refuses nothing, and `check` is content.
    """
    accounts = tmp_path / "accounts"
    accounts.mkdir()
    port = find_free_port()
    async with open_place(tmp_path) as place:
        (script,) = json.loads(place.environ["WORKER_ARGS"])
        place.environ |= {
            "KUBECONFIG": await bind(place, ROLE, accounts),
            "HTTP_HOST": "127.0.0.1",
            "HTTP_PORT": str(port),
            "LOG_SINK": "stdout",
            "WORKER_ARGS": json.dumps([f"echo a line of the log; {script}"]),
        }
        async with place.serve() as first:
            await place.start_workers(3)
            await first.kill()
        async with place.serve() as second:
            await second.hear("adopted")
            place.send("scale_down", 1)
            await place.wait_results(1)
            place.open_gate()
            place.send(pods=16)
            await place.wait_results(3, 40)
            await place.judge_rest()
            asked = await requests_of(port)
            await second.hear("a line of the log")
            assert not [line for line in first.lines + second.lines if "orbidden" in line]
        assert {verb for verb, _ in asked} >= {"create", "list", "delete", "deletecollection"}
        assert {code for _, code in asked} & {"401", "403"} == set()
        findings = await check(place)
        assert {finding.verdict for finding in findings} == {"ok"}, findings


async def requests_of(port: int) -> set[tuple[str, str]]:
    """Verb and code of what was asked of the API so far."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    counts = [family for family in text_string_to_metric_families(text) if family.name.endswith("api_request_seconds")]
    return {(each.labels["verb"], each.labels["code"]) for family in counts for each in family.samples}


async def check(place: Place, **settings: str) -> list[Finding]:
    """What `ottoscaler check` finds of the API."""
    environ = {name: value for name, value in place.environ.items() if name not in os.environ} | settings
    with trio.fail_after(45):
        return [finding async for finding in look_at_kubernetes(load_settings(environ))]


async def test_every_verb_that_is_missing_is_named(tmp_path: Path) -> None:
    """One verb less, whichever: `check` says so in one line with the mend; the rest stays well."""
    accounts = tmp_path / "accounts"
    accounts.mkdir()
    async with open_place(tmp_path) as place:
        for resource, verb in RIGHTS:
            kubeconfig = await bind(place, role_without(resource, verb), accounts)
            bad = [each for each in await check(place, KUBECONFIG=kubeconfig) if each.verdict != "ok"]
            assert len(bad) == 1, (resource, verb, bad)
            assert bad[0].words.startswith(f"{verb} {resource} in namespace {place.namespace} is not allowed")
            assert bad[0].mend.startswith(f"add the verb {verb} on {resource} to the Role")
            assert bad[0].verdict == ("FAIL" if resource == "pods" else "warn")


def test_every_right_is_explained() -> None:
    """docs/security.md says of each right of the Role what it is for, and of no other."""
    table = (ROOT / "docs" / "security.md").read_text().split("<!-- rights:")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[3:]]
    assert [(resource, verb) for resource, verbs, _ in rows for verb in verbs.split(", ")] == RIGHTS
    assert all(reason for _, _, reason in rows)
