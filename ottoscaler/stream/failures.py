"""Foreign errors of Redis, translated once: what passes by itself becomes `Unavailable`, a bug stays what it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from redis import exceptions

from ottoscaler.errors import FixYourCall, Unavailable
from ottoscaler.stream.base import GroupLost

# Answers of a server that cannot serve at present; inside the message where a script got them.
PASSING = re.compile(
    r"\b(OOM|READONLY|MISCONF|LOADING|BUSY|CLUSTERDOWN|MASTERDOWN|TRYAGAIN|NOREPLICAS|NOAUTH|WRONGPASS)\b"
)
DENIED = re.compile(r"\bNOPERM\b|ACL failure|user executing the script can't run")
# The last is what Redis 7.0 answers to a read that waits.
GROUP_GONE = re.compile(r"\bNOGROUP\b|no such key|stream key no longer exists", re.IGNORECASE)
# Answers that no waiting mends: a setting leads to what cannot be ours.
WRONG_PLACES = (
    (re.compile(r"\bWRONGTYPE\b"), "holds something else under a key of ours, expected another REDIS_STREAM"),
    (re.compile(r"DB index", re.IGNORECASE), "has no such database, expected another REDIS_DB"),
)
SENTENCES: dict[type[Exception], str] = {
    exceptions.AuthenticationError: "refuses the login",
    exceptions.AuthorizationError: "refuses the login",
    exceptions.NoPermissionError: "does not permit this user what Ottoscaler needs",
    exceptions.BusyLoadingError: "is loading its data",
    exceptions.ReadOnlyError: "is a read-only replica",
    exceptions.OutOfMemoryError: "is out of memory",
    exceptions.ClusterDownError: "belongs to a cluster that is down",
    exceptions.TryAgainError: "is moving data",
    exceptions.TimeoutError: "did not answer in time",
    exceptions.ConnectionError: "cannot be reached",
    OSError: "cannot be reached",
}


@contextmanager
def translated(address: str) -> Iterator[None]:
    """Raise `Unavailable`, `FixYourCall` (both name the address) or `GroupLost` in place of redis-py's errors; others
    pass.
    """
    try:
        yield
    except (exceptions.RedisError, OSError) as error:
        raise translation_of(error, address) from error


def translation_of(error: Exception, address: str) -> Exception:
    """The error that the product knows for one of redis-py's; the same error where it is nobody's outage."""
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, exceptions.ResponseError) and GROUP_GONE.search(text):
        return GroupLost(f"Redis at {address} knows the consumer group no more: {text}")
    for answer, words in WRONG_PLACES:
        if isinstance(error, exceptions.ResponseError) and answer.search(text):
            return FixYourCall(f"Redis at {address} {words}: {text}")
    sentence = next((words for kind, words in SENTENCES.items() if isinstance(error, kind)), None)
    if sentence is None and isinstance(error, exceptions.ResponseError) and DENIED.search(text):
        sentence = SENTENCES[exceptions.NoPermissionError]
    if sentence is None and isinstance(error, exceptions.ResponseError) and PASSING.search(text):
        sentence = "cannot serve at present"
    if sentence is None:
        return error
    return Unavailable(f"Redis at {address} {sentence}: {text}", address=address)
