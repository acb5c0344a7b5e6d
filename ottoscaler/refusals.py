"""Why an event is refused: the closed set of causes of dead letters, of which docs/policy.md says what each means."""

from typing import Literal, get_args

Refusal = Literal[
    "MissingType",
    "UnknownType",
    "BadPodCount",
    "TooManyPods",
    "BadEventId",
    "UnknownEvent",
    "UnknownTemplate",
    "BadSpec",
    "BadParent",
    "BadRequestId",
    "BadRemain",
    "BadPipeline",
    "UnknownField",
    "DuplicateField",
    "DuplicateName",
    "TooManyFields",
    "NotUtf8",
    "BadMetadata",
    "MetadataTooLarge",
    "RequestMismatch",
    "PolicyRefused",
    "TooOld",
    "Trimmed",
    "HandlingFailed",
]
REFUSALS: tuple[Refusal, ...] = get_args(Refusal)
