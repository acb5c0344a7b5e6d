"""The policy: whether an event may ask for what it asks. Judged once, when it is admitted; what came in stays in.

An event that asks for nothing of its own gets what template and settings say, which is the operator's word; the
ceilings hold for that, too, and are judged on the pod that the API would be sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from ottoscaler.events import Event
from ottoscaler.parsing import parse_quantity
from ottoscaler.patterns import matches
from ottoscaler.policy_file import ENTRYPOINT, MORE, PolicyFile
from ottoscaler.spec import Spec, show_spec

EXPANSIONS = {"$(OTTO_": "$(OTTO_...)", **{text: text for text in ("$(TRACEPARENT)", "$(TRACESTATE)")}}
"""Kubernetes puts a variable's value in its place, and those values are the sender's; each with what is said of it."""
_SHOWN = 80
_LISTED = 10
"""Patterns that a refusal names; it must fit into the headers of an answer."""

BuildPod = Callable[[Event, int, int], Mapping[str, Any]]


class Policy:
    """What the file (or its defaults) lets events ask for.

    `own_images`: those of settings and templates, which everybody may use. `build_pod(event, index, attempt)`: the pod
    that the API would be sent.
    """

    def __init__(self, file: PolicyFile, own_images: frozenset[str], build_pod: BuildPod) -> None:
        self._file = file
        self._own_images = own_images
        self._build_pod = build_pod

    def judge(self, event: Event) -> str | None:
        """Why the event is refused, in a sentence that names field, value and what is allowed; None = it is not."""
        if event.type != "scale_up":
            return None
        self._file.look()
        return next(self._problems(event), None)

    def _problems(self, event: Event) -> Iterator[str]:
        spec = event.spec or Spec()
        if self._file.problem and spec != Spec():
            yield (
                f"field otto.spec is {show_spec(spec)}, expected none while the policy cannot be used "
                f"({self._file.problem})"
            )
        yield from self._images(spec)
        yield from self._commands(spec)
        yield from self._ceilings(event)

    def _images(self, spec: Spec) -> Iterator[str]:
        allowed = [*sorted(self._own_images), *self._file.rules.images]
        is_allowed = not spec.image or spec.image in self._own_images
        if not is_allowed and not any(matches(pattern, spec.image) for pattern in self._file.rules.images):
            yield _refusal("otto.spec.image", repr(spec.image), _one_of(allowed))

    def _commands(self, spec: Spec) -> Iterator[str]:
        commands = self._file.rules.commands
        if commands is None or (spec.command is None and spec.args is None):
            return
        field = "otto.spec.args" if spec.command is None else "otto.spec.command"
        words = [*(spec.command or (None,)), *(spec.args or ())]
        shown = repr(" ".join(word for word in words if word is not None)) if words != [None] else "empty"
        for expansion, said in EXPANSIONS.items():
            if any(expansion in word for word in words if word):
                yield _refusal(field, shown, f"no {said} in it, because commands are restricted")
        if not any(_fits(command, words) for command in commands):
            allowed = [" ".join(command) for command in commands]
            yield _refusal(field, shown, _one_of(allowed) if allowed else "none: they are the template's to say")

    def _ceilings(self, event: Event) -> Iterator[str]:
        most = self._file.rules.ceilings
        if most.workers is not None and event.pod_count > most.workers:
            yield _refusal("pod_count", repr(str(event.pod_count)), f"at most {most.workers} (ceilings.workers)")
        if most[:3] == (None, None, None):
            return
        pod = self._build_pod(event, 1, 1)["spec"]
        if most.timeout_seconds is not None:
            yield from _deadline(pod.get("activeDeadlineSeconds"), most.timeout_seconds, event)
        for resource, limit in (("cpu", most.cpu), ("memory", most.memory)):
            total = _total(pod, resource)
            if limit is not None and (total is None or total > limit):
                has = f"no limit of {resource}" if total is None else f"{resource} {total.normalize():f}"
                most_of_it = f"at most {limit.normalize():f} (ceilings.{resource})"
                yield _refusal("template", _template(event), most_of_it, has)


def _deadline(deadline: object, most: int, event: Event) -> Iterator[str]:
    if isinstance(deadline, int) and deadline <= most:
        return
    expected = f"at most {most} (ceilings.timeout_seconds)"
    if event.spec and event.spec.timeout_seconds:
        yield _refusal("otto.spec.timeout_seconds", str(deadline), expected)
    else:
        yield _refusal("template", _template(event), expected, f"activeDeadlineSeconds {deadline!r}")


def _fits(command: Sequence[str], words: Sequence[str | None]) -> bool:
    """Word by word; None is the image's own command."""
    is_open = command[-1] == MORE
    wanted = command[:-1] if is_open else command
    if len(words) < len(wanted) or (len(words) > len(wanted) and not is_open):
        return False
    return all(
        pattern == ENTRYPOINT if word is None else pattern != ENTRYPOINT and matches(pattern, word)
        for pattern, word in zip(wanted, words, strict=False)
    )


def _total(pod: Mapping[str, Any], resource: str) -> Decimal | None:
    """The most of a resource that a whole pod can take; None where a container has no limit."""
    containers, inits = pod["containers"], pod.get("initContainers") or []
    beside = [each for each in inits if each.get("restartPolicy") == "Always"]
    before = [_limit(each, resource) for each in inits if each.get("restartPolicy") != "Always"]
    together = [_limit(each, resource) for each in containers]
    always = [_limit(each, resource) for each in beside]
    if any(limit is None for limit in (*before, *together, *always)):
        return None
    return sum(filter(None, always), Decimal()) + max(
        sum(filter(None, together), Decimal()), *filter(None, before), Decimal()
    )


def _limit(container: Mapping[str, Any], resource: str) -> Decimal | None:
    """A container's limit; 0 is none to Kubernetes, and what is no quantity is none to us."""
    limits = (container.get("resources") or {}).get("limits")
    try:
        limit = parse_quantity(str(limits[resource])) if isinstance(limits, Mapping) else None
    except (KeyError, ValueError):
        return None
    return limit if limit and limit > 0 else None


def _refusal(field: str, shown: str, expected: str, made: str = "") -> str:
    """The sentence; `made` is what the field leads to, where that is what was judged."""
    shown = shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."
    return f"field {field} is {shown}{f', which makes a pod with {made}' if made else ''}, expected {expected}"


def _template(event: Event) -> str:
    return repr(event.template) if event.template else "not given"


def _one_of(patterns: Sequence[str]) -> str:
    shown, more = ", ".join(patterns[:_LISTED]), len(patterns) - _LISTED
    return ("one of " if len(patterns) > 1 else "") + shown + (f" and {more} more" if more > 0 else "")
