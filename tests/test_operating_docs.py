"""The pages on operating and comparing name only what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ottoscaler.cli import COMMANDS
from ottoscaler.settings import FIELDS

DOCS = Path(__file__).parent.parent / "docs"
OPERATE = (DOCS / "operate.md").read_text()
RUNBOOK = (DOCS / "runbook.md").read_text()
METRICS = (DOCS / "metrics.md").read_text()


def test_every_metric_to_watch_is_one() -> None:
    """docs/metrics.md, which is made from the code, has them all."""
    named = set(re.findall(r"`(ottoscaler_\w+)`", OPERATE))
    assert len(named) > 8
    assert {name for name in named if f"`{name}`" not in METRICS} == set()


def test_every_setting_is_one() -> None:
    """What is written in capitals between backquotes is a setting."""
    named = set(re.findall(r"`([A-Z][A-Z_]{4,})(?:=\w+)?`", OPERATE))
    assert {"MAX_WORKERS", "DRAIN_SECONDS", "PLATFORM_RETRY_STARTED"} <= named
    assert named <= set(FIELDS)


def test_every_command_is_one() -> None:
    """What is to be typed exists."""
    named = set(re.findall(r"ottoscaler ([a-z]+)(?=[ `\n])", " ".join(re.findall(r"`[^`]+`|```.+?```", OPERATE, re.S))))
    assert {"status", "check", "dlq"} <= named
    assert named <= set(COMMANDS)


def test_every_log_line_of_the_runbook_is_written_somewhere() -> None:
    """Who searches the log for what the runbook names must be able to find it."""
    named = set(re.findall(r"`((?:[A-Za-z-]+ ){1,6}[a-z]+)`", " ".join(re.findall(r"log lines?[^.;]*", RUNBOOK, re.S))))
    assert {"Redis is lost", "the Kubernetes API is lost", "orphan deleted", "log has a gap"} <= named
    code = "".join(file.read_text() for file in (DOCS.parent / "ottoscaler").rglob("*.py"))
    assert {words for words in named if words not in code} == set()


@pytest.mark.parametrize("page", ["operate.md", "compare.md"])
def test_every_page_that_is_linked_is_there(page: str) -> None:
    """Links within the documentation lead somewhere."""
    links = re.findall(r"\]\((?!https:)([^)#]+)", (DOCS / page).read_text())
    assert [link for link in links if not (DOCS / link).exists()] == []
