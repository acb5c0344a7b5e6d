"""Alerts, runbook and dashboard: their queries can be read, and ask for metrics and labels that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import promql_parser as promql
import pytest
import yaml

from ottoscaler.causes import CAUSES
from ottoscaler.events import EventType
from ottoscaler.gauges import looked_up_metrics
from ottoscaler.metrics import STAGES, kept_metrics
from tests.deploy.helm import CHART, ROOT, render
from tests.deploy.promql import evaluate

ALERTS = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["alerts"]
DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
METRICS = {metric.name: metric for metric in (*kept_metrics(), *looked_up_metrics())}
PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total"}
SCRAPED = {"namespace", "service", "pod", "le"}
"""Labels that come with the scrape, and with every histogram."""
CLOSED = {
    "stage": set(STAGES),
    "cause": {cause.name for cause in CAUSES.values()},
    "outcome": {"succeeded", "failed", "terminated"},
    "type": set(get_args(EventType)),
    "state": {"queued", "pending", "running", "ended", "deleting", "unknown"},
    "phase": {"Pending", "Running", "Succeeded", "Failed", "Unknown"},
}
"""Values that a label can have, where it is a closed set."""


def queries_of(panel: dict[str, Any]) -> list[str]:
    """The queries of a panel, with what Grafana puts in their place."""
    return [target["expr"].replace("$__rate_interval", "5m") for target in panel["targets"]]


def selectors(query: str) -> Iterator[promql.VectorSelector]:
    """Every place where a query names a metric. Raises ValueError where it is no query."""
    found: list[promql.VectorSelector] = []
    promql.walk(
        promql.parse(query), lambda node: found.append(node) if isinstance(node, promql.VectorSelector) else None
    )
    yield from found


def named(selector: promql.VectorSelector) -> str:
    """The metric as our table calls it: without the parts that a histogram has."""
    for metric in METRICS.values():
        if metric.kind == "histogram" and selector.name in [f"{metric.name}_{part}" for part in ("bucket", "count")]:
            return metric.name
    return str(selector.name)


def check_query(query: str) -> None:
    """The metrics are there, with these labels, which can have these values; grouped by labels that are there."""
    labels = set(SCRAPED)
    for selector in selectors(query):
        name = named(selector)
        assert name in METRICS.keys() | PROCESS, name
        own = set(METRICS[name].labels) if name in METRICS else set()
        labels |= own
        assert METRICS.get(name) is None or METRICS[name].kind != "histogram" or selector.name != name
        matchers = {matcher.name: matcher for matcher in selector.matchers.matchers}
        assert {"namespace", "service"} <= matchers.keys(), f"{selector.name} is not of one release"
        assert matchers.keys() <= SCRAPED | own, f"{selector.name} has no such label"
        for label, matcher in matchers.items():
            if label in CLOSED:
                assert set(matcher.value.split("|")) <= CLOSED[label]
    for group in re.findall(r"\b(?:by|on) ?\(([^)]*)\)", query):
        assert {label.strip() for label in group.split(",") if label.strip()} <= labels, query


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_asks_for_what_there_is(alert: dict[str, str]) -> None:
    """Its query can be read, its metrics, labels and causes exist, and it says how severe and in one sentence what."""
    check_query(alert["expr"])
    assert alert["severity"] in ("critical", "warning", "info")
    assert re.fullmatch(r"\d+m", alert["for"])
    assert re.fullmatch(r"[A-Z][^{}]*\.", alert["summary"])


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_for_what_there_is(panel: dict[str, Any]) -> None:
    """Each of its queries can be read and asks for existing metrics and labels; its legend shows labels it has."""
    assert panel["description"].endswith(".")
    for target, query in zip(panel["targets"], queries_of(panel), strict=True):
        check_query(query)
        shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        grouped = re.findall(r"\bby \(([^)]*)\)", query)
        if grouped:
            assert shown <= {label.strip() for label in grouped[0].split(",")}


def test_panels_do_not_overlap() -> None:
    """Each panel has its own place on the grid of 24 columns, and its own number."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_alert_has_its_page() -> None:
    """The runbook has one part per alert and no other, each saying what it means, what to look at and what to do."""
    parts = re.split(r"^## ", (ROOT / "docs" / "runbook.md").read_text(), flags=re.MULTILINE)[1:]
    pages = {part.splitlines()[0]: part for part in parts}
    assert list(pages) == [alert["alert"] for alert in ALERTS]
    for name, page in pages.items():
        for word in ("**Means**", "**Look at**", "**Do**"):
            assert word in page, f"{name}: {word}"


def test_the_rule_of_the_chart_holds_the_alerts() -> None:
    """Rendered for a namespace and a name: no variable is left, and each alert points at its page."""
    values = {"prometheusRule": {"enabled": True, "runbook": "https://example.com/runbook"}, "name": "team-a"}
    (group,) = render(values, "prod")["PrometheusRule", "team-a"]["spec"]["groups"]
    assert [rule["alert"] for rule in group["rules"]] == [alert["alert"] for alert in ALERTS]
    for rule in group["rules"]:
        assert "$" not in rule["expr"]
        assert 'namespace="prod", service="team-a"' in rule["expr"]
        promql.parse(rule["expr"])
        assert rule["annotations"]["runbook_url"] == f"https://example.com/runbook#{rule['alert'].lower()}"


@pytest.mark.parametrize(
    ("counts", "is_said_at"),
    [
        ([None, None, 1, *[1] * 20], range(2, 12)),
        ([1, *[1] * 20], range(10)),
        ([2, 2, 3, *[3] * 20], range(12)),
        ([0] * 20, range(0)),
        ([None] * 20, range(0)),
    ],
    ids=["the first", "before the first scrape", "one more", "none", "never"],
)
def test_the_first_refusal_of_a_verb_is_said(counts: list[float | None], is_said_at: range) -> None:
    """A request that is answered 401 or 403 raises OttoscalerApiForbidden for ten minutes, also the first one ever."""
    (group,) = render({"prometheusRule": {"enabled": True}})["PrometheusRule", "ottoscaler"]["spec"]["groups"]
    (rule,) = (rule for rule in group["rules"] if rule["alert"] == "OttoscalerApiForbidden")
    old = frozenset({"verb": "list", "code": "403", "pod": "a"}.items())
    new = frozenset({"verb": "create", "code": "403", "pod": "a"}.items())
    said = {
        minute: evaluate(rule["expr"], {new: [None] * 20 + counts, old: [7] * 60}, minute + 20)
        for minute in range(len(counts))
    }
    verb = frozenset({("verb", "create")})
    assert {minute for minute, firing in said.items() if verb in firing} == set(is_said_at)
    assert all(firing.keys() <= {verb} for firing in said.values())


def test_the_rules_keep_the_form_of_prometheus(tmp_path: Path) -> None:
    """What `promtool check rules` looks at: known fields, durations, names of labels, no alert twice in a group; and
    promtool itself finds nothing, where it is installed.
    """
    groups = render({"prometheusRule": {"enabled": True, "labels": {"a": "b"}}})["PrometheusRule", "ottoscaler"]["spec"]
    (group,) = groups["groups"]
    assert group.keys() == {"name", "rules"}
    for rule in group["rules"]:
        assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"(\d+(ms|[smhdwy]))+", rule["for"])
        assert all(re.fullmatch(r"[a-zA-Z_]\w*", name) for name in (*rule["labels"], *rule["annotations"]))
        assert all(isinstance(value, str) and value for value in (*rule["labels"].values(), rule["expr"]))
    assert len({rule["alert"] for rule in group["rules"]}) == len(group["rules"])
    if promtool := shutil.which("promtool"):
        (tmp_path / "rules.yaml").write_text(yaml.safe_dump(groups))
        done = subprocess.run([promtool, "check", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_scraped_carries_the_labels_that_queries_use() -> None:
    """The ServiceMonitor finds the Service by its label and port, so `service` is the release's."""
    objects = render({"serviceMonitor": {"enabled": True}})
    monitor, service = objects["ServiceMonitor", "ottoscaler"]["spec"], objects["Service", "ottoscaler"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert (
        json.loads(
            render({"dashboard": {"enabled": True}})["ConfigMap", "ottoscaler-dashboard"]["data"]["ottoscaler.json"]
        )
        == DASHBOARD
    )
