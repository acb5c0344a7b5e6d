"""`explain`, and the page of failures that is made from the same words."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottoscaler import signals
from ottoscaler.causes import CAUSES, CLASSES
from ottoscaler.cli import main
from ottoscaler.cli.causes_table import causes_table
from ottoscaler.refusals import REFUSALS

PAGE = Path(__file__).parents[2] / "docs" / "failures.md"


@pytest.fixture(autouse=True)
def _keep_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "restore_signals", lambda: None)


def test_the_page_is_made_from_the_code() -> None:
    """docs/failures.md says what the code does; `python -m ottoscaler.cli.causes_table` makes it anew."""
    assert PAGE.read_text() == causes_table()


def test_all_causes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without an argument there is one line per cause, with its class."""
    assert main(["explain"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["CAUSE", "CLASS", "MEANING"]
    assert [tuple(line.split()[:2]) for line in lines] == [(cause.name, cause.kind) for cause in CAUSES.values()]


@pytest.mark.parametrize("given", ["OutOfMemory", "outofmemory"])
def test_one_cause_is_explained(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A cause, in any case, is explained by what it means, how it looks, what happens and what to do."""
    assert main(["explain", given]) == 0
    cause = CAUSES["OutOfMemory"]
    assert capsys.readouterr().out.splitlines() == [
        "OutOfMemory (own)",
        f"  meaning      {cause.meaning}",
        f"  looks        {cause.looks}",
        f"  what happens {CLASSES['own']}",
        f"  what to do   {cause.advice}",
    ]


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("OutOfMemry", "; did you mean OutOfMemory?"),
        ("unknowntipe", "; did you mean UnknownType?"),
        ("zzzz", ""),
    ],
)
def test_an_unknown_cause_gets_a_suggestion(given: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A word that is no cause ends with code 2 and one sentence, which names the causes and the one that was meant."""
    assert main(["explain", given]) == 2
    names = ", ".join((*CAUSES, *REFUSALS))
    assert capsys.readouterr().err == f"ottoscaler: CAUSE is {given!r}, expected one of {names}{hint}\n"


def test_a_cause_of_dead_letters_leads_to_its_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever met a cause in the dead letters is told where each one's reason stands."""
    assert main(["explain", "toomanypods"]) == 0
    assert capsys.readouterr().out == (
        "TooManyPods (dead letter): why an event was refused; the reason: ottoscaler dlq list --cause TooManyPods\n"
    )
