"""`dlq`: what was refused is seen, replayed once, dropped, saved and restored; wrong calls say what is wrong."""

import io
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from ottoscaler.cli import dlq, main
from ottoscaler.cli.counting import counting
from ottoscaler.cli.dlq_changes import replay_many
from ottoscaler.cli.letters import BadLetter, find_letter, is_id, read_letters
from ottoscaler.cli.letters_json import from_lines, to_json
from ottoscaler.events import BadEntry, dump_entry, load_entry
from ottoscaler.outcomes import dead_letter_pairs
from ottoscaler.refusals import REFUSALS, Refusal
from ottoscaler.stream.memory import MemoryServer, MemoryStream

BAD = ((b"type", b"scale_sideways"), (b"\xff", b"a\x1b[31m\xfe"), (b"note", "für\nalle".encode()))


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("1756659802903-0", True),
        (f"{2**64 - 1}-0", True),
        (f"{2**64}-0", False),
        (f"0-{2**64}", False),
        ("1-2-3", False),
    ],
)
def test_an_id_is_what_redis_takes_for_one(text: str, is_one: bool) -> None:
    """Two whole numbers of 64 bits; others never reach a script, which would break on them."""
    assert is_id(text) == is_one


def add_letter(
    server: MemoryServer, event_id: str, cause: Refusal = "UnknownType", pairs: Sequence[tuple[bytes, bytes]] = BAD
) -> str:
    """A dead letter as a scaler writes it; its id."""
    bad = BadEntry(event_id, cause, "field type is 'scale_sideways', expected scale_up", tuple(pairs))
    written = dead_letter_pairs(bad, deliveries=2, failed=1_756_659_802.5)
    return server.dead_letters.add([(n.encode(), v.encode()) for n, v in written], server.now())


def call(*words: str) -> int:
    """Run one command line."""
    return main(["dlq", *words])


def events(server: MemoryServer) -> list[tuple[tuple[bytes, bytes], ...]]:
    """The entries of the event stream."""
    return list(server.events.entries.values())


def test_the_list_is_a_table(server: MemoryServer, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each, oldest first, with cause and reason; `--cause` chooses."""
    one, two = add_letter(server, "1-1"), add_letter(server, "2-1", "BadPodCount")
    assert call("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.split(r"\s{3,}", lines[0]) == ["ID", "EVENT", "CAUSE", "DELIVERIES", "FAILED", "REASON"]
    assert [line.split()[:3] for line in lines[1:]] == [[one, "1-1", "UnknownType"], [two, "2-1", "BadPodCount"]]
    assert lines[1].endswith(
        "2            2025-08-31T17:03:22.500Z   field type is 'scale_sideways', expected scale_up"
    )
    assert call("list", "--cause", "BadPodCount") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["ID", two]


def test_an_empty_list_says_so(server: MemoryServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing goes to stdout; one sentence on stderr, also for a cause that none has."""
    assert call("list") == 0
    assert capsys.readouterr() == ("", "there are no dead letters\n")
    add_letter(server, "1-1")
    assert call("list", "--cause", "BadPodCount", "-o", "json") == 0
    assert capsys.readouterr() == ("", "there are no dead letters of cause BadPodCount\n")


def test_json_has_every_field(server: MemoryServer, capsys: pytest.CaptureFixture[str]) -> None:
    """One object per line, with the entry as a list that restores every byte."""
    letter_id = add_letter(server, "1-1")
    assert call("list", "-o", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert load_entry(json.dumps(found.pop("entry"))) == BAD
    assert found == {
        "id": letter_id,
        "v": "1",
        "event_id": "1-1",
        "cause": "UnknownType",
        "reason": "field type is 'scale_sideways', expected scale_up",
        "deliveries": 2,
        "failed_at": "2025-08-31T17:03:22.500Z",
    }


def test_show_finds_by_either_id(server: MemoryServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The dead letter's own id and its event's id show the same; what does not print is escaped."""
    add_letter(server, "2-1")
    letter_id = add_letter(server, "1-1")
    assert call("show", letter_id) == 0
    by_own_id = capsys.readouterr().out
    assert call("show", "1-1") == 0
    assert capsys.readouterr().out == by_own_id
    assert by_own_id.splitlines() == [
        f"id          {letter_id}",
        "event_id    1-1",
        "cause       UnknownType",
        "reason      field type is 'scale_sideways', expected scale_up",
        "deliveries  2",
        "failed_at   2025-08-31T17:03:22.500Z",
        "entry",
        "  type      scale_sideways",
        "  b'\\xff'   b'a\\x1b[31m\\xfe'",
        "  note      für\\nalle",
    ]


@pytest.mark.parametrize("action", ["show", "drop", "replay"])
def test_an_unknown_id_is_a_sentence(server: MemoryServer, capsys: pytest.CaptureFixture[str], action: str) -> None:
    """What is not there ends with exit code 1, what cannot be an id with 2, each with one sentence."""
    assert call(action, "7-7") == 1
    assert re.fullmatch(r"ottoscaler: [^\n]*there is no[^\n]*dead letter[^\n]*\n", capsys.readouterr().err)
    assert call(action, "seven") == 2
    assert capsys.readouterr().err == (
        "ottoscaler: ID is 'seven', expected the id of a dead letter or of its event, such as 1756659802903-0\n"
    )


async def test_an_id_of_two_letters_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    """Where one letter's id is another's event, neither is guessed."""
    server = MemoryServer()
    first = add_letter(server, "1-1")
    second = add_letter(server, first)
    with pytest.raises(BadLetter, match=f"more than one dead letter: {first} .of the event 1-1. and {second}"):
        await find_letter(MemoryStream(server, "cli"), first)


def test_a_replay_prints_the_new_event(server: MemoryServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The event has the same bytes and what it replays; asked again by either id, the same event is named."""
    letter_id = add_letter(server, "1-1")
    assert call("replay", "1-1") == 0
    event_id = capsys.readouterr().out
    assert events(server) == [(*BAD, (b"otto.replay_of", b"1-1"))]
    assert len(server.dead_letters) == 0
    for name in (letter_id, "1-1"):
        assert call("replay", name) == 0
        assert capsys.readouterr() == (event_id, f"ottoscaler: {name} was replayed before, as this event\n")
    assert len(events(server)) == 1


def test_a_trimmed_entry_cannot_be_replayed(server: MemoryServer, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence says why, and the dead letter stays."""
    add_letter(server, "1-1", "Trimmed", ())
    assert call("replay", "1-1") == 1
    assert capsys.readouterr().err == (
        "ottoscaler: the dead letter 1-1 cannot be replayed: its entry was trimmed from the stream before anybody "
        "read it\n"
    )
    assert len(server.dead_letters) == 1
    assert call("show", "1-1") == 0
    assert capsys.readouterr().out.endswith("entry\n  (trimmed from the stream before anybody read it)\n")


def test_all_of_a_cause_are_replayed(server: MemoryServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The others stay; those that cannot be replayed are named and make the exit code 1."""
    for number in range(1, 4):
        add_letter(server, f"{number}-1")
    add_letter(server, "4-1", "BadPodCount")
    add_letter(server, "5-1", "UnknownType", ())
    assert call("replay", "--cause", "UnknownType") == 1
    said = capsys.readouterr()
    assert said.out == "replayed 3 of 4 dead letters\n"
    assert said.err.count("cannot be replayed") == 1
    assert [pairs[-1][1] for pairs in events(server)] == [b"1-1", b"2-1", b"3-1"]
    assert len(server.dead_letters) == 2


@pytest.mark.parametrize("action", ["list", "replay"])
def test_a_word_that_is_no_cause_is_refused(
    server: MemoryServer, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    """A mistyped cause is no answer that there are none: the causes that dead letters have are named."""
    add_letter(server, "1-1")
    assert call(action, "--cause", "Nope") == 2
    causes = ", ".join(REFUSALS)
    assert capsys.readouterr() == ("", f"ottoscaler: --cause is 'Nope', expected one of {causes}\n")
    assert len(server.dead_letters) == 1


def test_an_empty_cause_does_not_mean_all(server: MemoryServer, capsys: pytest.CaptureFixture[str]) -> None:
    """`--cause ''` is a wrong call."""
    add_letter(server, "1-1")
    with pytest.raises(SystemExit, match="2"):
        call("replay", "--cause", "")
    assert len(server.dead_letters) == 1


@pytest.mark.parametrize("action", ["replay", "drop"])
def test_all_needs_a_yes(
    server: MemoryServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """Without a terminal --all needs --yes; on one it asks, and only a yes goes on."""
    add_letter(server, "1-1")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert call(action, "--all") == 2
    assert capsys.readouterr().err == (
        "ottoscaler: --all needs --yes where nobody can be asked (stdin is no terminal)\n"
    )
    for answer, left in (("\n", 1), ("n\n", 1), ("", 1), ("y\n", 0)):
        monkeypatch.setattr(sys, "stdin", Typed(answer))
        assert call(action, "--all") == 0
        assert capsys.readouterr().err == f"{action} 1 dead letter? [y/N] "
        assert len(server.dead_letters) == left


class Typed(io.StringIO):
    """What somebody types on a terminal."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def test_dropping(server: MemoryServer, capsys: pytest.CaptureFixture[str]) -> None:
    """One by its id, then all."""
    letter_id = add_letter(server, "1-1")
    add_letter(server, "2-1")
    add_letter(server, "3-1")
    assert call("drop", letter_id) == 0
    assert call("drop", "--all", "--yes") == 0
    assert call("drop", "--all", "--yes") == 0
    assert capsys.readouterr() == ("dropped 1 dead letter\ndropped 2 dead letters\n", "there are no dead letters\n")
    assert events(server) == []


def test_ten_thousand_replays_say_how_far_they_are(server: MemoryServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal there is one line for every thousand; each becomes one event, in order."""
    for number in range(10_000):
        add_letter(server, f"{number}-9", pairs=((b"type", b"x"),))
    assert call("replay", "--all", "--yes") == 0
    said = capsys.readouterr()
    assert said.out == "replayed 10000 of 10000 dead letters\n"
    assert said.err.splitlines() == [f"replayed {thousands}000 of 10000" for thousands in range(1, 11)]
    assert [pairs[1][1] for pairs in events(server)] == [b"%d-9" % number for number in range(10_000)]


def test_a_terminal_gets_a_bar() -> None:
    """On a terminal the progress is a bar, and nothing of it stays."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    with counting("replayed", 2000, out) as count:
        count(500)
        count(1500)
    assert "replayed" in out.getvalue()
    assert "2000/2000" in out.getvalue()
    assert "\nreplayed 1000 of" not in out.getvalue()


def test_an_export_restores_what_was_dropped(
    server: MemoryServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Everything comes back, field by field; what is there, or was replayed since, is not written again."""
    for number in range(1, 61):
        add_letter(server, f"{number}-1")
    add_letter(server, "99-1", "Trimmed", ())
    before = [dict(pairs) for pairs in server.dead_letters.entries.values()]
    file = tmp_path / "letters"
    assert call("export", str(file)) == 0
    assert call("import", str(file)) == 0
    assert call("drop", "--all", "--yes") == 0
    assert call("import", str(file)) == 0
    assert [dict(pairs) for pairs in server.dead_letters.entries.values()] == before
    assert call("replay", "5-1") == 0
    capsys.readouterr()
    assert call("import", str(file)) == 0
    assert capsys.readouterr().out == "restored 0 dead letters; 60 there already; 1 replayed since\n"
    assert [path.name for path in tmp_path.iterdir()] == ["letters"]


def test_streams_that_are_closed_are_a_mistake_in_a_sentence(
    server: MemoryServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started with `<&-` or `>&-` nobody can be asked, nothing be read, and no export be lost unnoticed."""
    add_letter(server, "1-1")
    monkeypatch.setattr(sys, "stdin", None)
    assert (call("replay", "--all"), call("import")) == (2, 2)
    assert capsys.readouterr().err == (
        "ottoscaler: --all needs --yes where nobody can be asked (stdin is no terminal)\n"
        "ottoscaler: FILE is '-', expected a stdin that is open\n"
    )
    monkeypatch.setattr(sys, "stdout", None)
    assert call("export") == 2
    assert capsys.readouterr().err == "ottoscaler: FILE is '-', expected a stdout that is open\n"


def test_an_export_goes_to_stdout_and_comes_from_stdin(
    server: MemoryServer, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a file both are streams, so that one Redis can be piped into another."""
    add_letter(server, "1-1")
    assert call("export") == 0
    exported = capsysbinary.readouterr().out
    server.flush()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(exported)))
    assert call("import") == 0
    assert capsysbinary.readouterr().out == b"restored 1 dead letter\n"
    [letter] = server.dead_letters.entries.values()
    assert load_entry(dict(letter)[b"entry"].decode()) == BAD


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "stdin, line 2 is no JSON object, expected one per line, as `dlq export` writes them"),
        ("[]", "stdin, line 2 is no JSON object, expected one per line, as `dlq export` writes them"),
        ('{"id": "x"}', "stdin, line 2: id is 'x', expected an id such as 1756659802903-0"),
        ('{"id": "1-1"}', "stdin, line 2: event_id is missing, expected what `dlq export` wrote there"),
        (
            '{"id": "1-1", "event_id": "1-1", "cause": "C", "entry": [["a"]]}',
            'stdin, line 2: entry is [["a"]], expected a list of pairs of name and value',
        ),
        (
            '{"id": "1-1", "event_id": "1-1", "cause": "C", "entry": [], "deliveries": 1.5}',
            "stdin, line 2: deliveries is 1.5, expected a text or a whole number",
        ),
    ],
)
def test_a_bad_line_stops_an_import_before_it_writes(
    server: MemoryServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    problem: str,
) -> None:
    """The sentence names line, field, value and what was expected; no letter was written."""
    good = to_json(("1-1", {"event_id": "2-1", "cause": "C", "entry": dump_entry(BAD)}))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{good}\n{line}\n".encode())))
    assert call("import") == 2
    assert capsys.readouterr().err == f"ottoscaler: {problem}\n"
    assert len(server.dead_letters) == 0


def test_a_file_that_cannot_be_opened_is_named(
    server: MemoryServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Neither reading nor writing one ends in a traceback."""
    for action, done in (("import", "read"), ("export", "written")):
        assert call(action, str(tmp_path / "no" / "file")) == 2
        expected = f"expected a file that can be {done} (No such file or directory)"
        assert capsys.readouterr().err == f"ottoscaler: FILE is '{tmp_path}/no/file', {expected}\n"


def test_an_entry_in_another_form_survives_the_way_through_a_file() -> None:
    """What is not ours to read is carried as it is."""
    fields = {"event_id": "1-1", "cause": "C", "entry": "no JSON", "deliveries": "007"}
    [letter] = from_lines([to_json(("5-5", fields)).encode()], "x")
    assert (letter.former_id, dict(letter.pairs)) == ("5-5", fields)
    assert dlq.described(("5-5", fields))[-1] == "entry       no JSON"


def test_a_lost_answer_is_asked_for_again(server: MemoryServer, capsys: pytest.CaptureFixture[str]) -> None:
    """When Redis carries a replay out and its answer gets lost, the command goes on and nothing is doubled."""
    for number in range(1, 121):
        add_letter(server, f"{number}-1")
    server.lose_answer_of.add("replay")
    assert call("replay", "--all", "--yes") == 0
    assert capsys.readouterr().out == "replayed 120 of 120 dead letters\n"
    assert len(events(server)) == 120


async def test_a_kill_between_any_two_steps_doubles_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """A replay of all that is cut off anywhere, and begun again, makes each dead letter exactly one event."""
    for steps in range(12):
        server = MemoryServer()
        for number in range(1, 121):
            add_letter(server, f"{number}-1")
        stream = MemoryStream(server, "cli")
        with trio.CancelScope() as killed:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(replay_all, stream)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                killed.cancel(reason="killed")
        await replay_all(stream)
        assert sorted(pairs[-1][1] for pairs in events(server)) == sorted(b"%d-1" % number for number in range(1, 121))
        assert len(server.dead_letters) == 0


async def replay_all(stream: MemoryStream) -> None:
    """What `replay --all` does."""
    ids = [id_ async for page in read_letters(stream) for id_, _ in page]
    await replay_many(stream, ids)
