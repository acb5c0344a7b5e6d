"""The closed set of causes, their classes, and how they are moved."""

from __future__ import annotations

import pytest

from ottoscaler.causes import CAUSES, CLASSES, Cause, CauseClass, check_retry_policy, class_of
from ottoscaler.drain import Drain
from ottoscaler.errors import SettingsError
from ottoscaler.service import serve
from ottoscaler.settings import load_settings

TABLE: dict[CauseClass, str] = {
    "own": "ExitCode OutOfMemory Killed DeadlineExceeded HungAfterDeadline LivenessFailed InitFailed Unknown",
    "platform": "Evicted Preempted NodeLost NodeShutdown OutOfResources DeletedByOther",
    "passing": "ImageNotFound ImageAccessDenied RegistryUnreachable ConfigMissing MountFailed Unschedulable",
    "refused": "QuotaExceeded ApiUnavailable ServiceAccountMissing NamespaceTerminating",
    "final": "InvalidImageName ImageNeverPull BadCommand SecurityContextRefused InvalidPod AdmissionRefused "
    "Forbidden NameTaken",
    "none": "Stopped Cancelled",
    "report": "LabelsLost StuckTerminating EraLost",
}


def test_the_set_is_closed() -> None:
    """There are exactly these causes, each in this class; users write rules and alerts on the words."""
    assert {name: cause.kind for name, cause in CAUSES.items()} == {
        name: kind for kind, names in TABLE.items() for name in names.split()
    }
    assert set(CLASSES) == set(TABLE)


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
def test_every_cause_explains_itself(cause: Cause) -> None:
    """Meaning, advice and look are each one sentence."""
    for sentence in (cause.meaning, cause.advice, cause.looks):
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert ". " not in sentence


def test_a_cause_can_be_moved() -> None:
    """What was moved decides; all others keep their class, and a word that is no cause counts as Unknown."""
    moved: dict[str, CauseClass] = {"OutOfMemory": "final"}
    assert class_of("OutOfMemory", moved) == "final"
    assert class_of("ExitCode", moved) == "own"
    assert class_of("NeverHeardOf") == "own"
    assert class_of("NeverHeardOf", {"Unknown": "final"}) == "final"


def test_a_good_policy_has_no_problems() -> None:
    """Every cause of failure can be moved to own, platform and final."""
    for target in ("own", "platform", "final"):
        assert (
            check_retry_policy(
                dict.fromkeys((n for n, c in CAUSES.items() if c.kind not in ("none", "report")), target)
            )
            == []
        )


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ({"OutOfmemory": "own"}, "RETRY_POLICY names 'OutOfmemory', expected a cause; did you mean OutOfMemory?"),
        ({"Zzz": "own"}, "RETRY_POLICY names 'Zzz', expected a cause; ottoscaler explain lists them"),
        ({"Evicted": "passing"}, "RETRY_POLICY moves Evicted to 'passing', expected one of own, platform, final"),
        ({"Stopped": "own"}, "RETRY_POLICY moves 'Stopped', expected a cause of failure, which Stopped is not"),
    ],
)
def test_a_bad_policy_says_what_is_wrong(policy: dict[str, str], sentence: str) -> None:
    """A problem names the field, the value and what was expected."""
    assert check_retry_policy(policy) == [sentence]


async def test_a_bad_policy_stops_the_start() -> None:
    """Nothing is begun with a policy that cannot be kept; all its problems are told at once."""
    settings = load_settings({"RETRY_POLICY": '{"Evictd": "final", "Stopped": "own"}'})
    with pytest.raises(SettingsError) as caught:
        await serve(settings, Drain(1.0, armed=False))
    assert [problem.split()[0] for problem in caught.value.problems[:2]] == ["RETRY_POLICY", "RETRY_POLICY"]
