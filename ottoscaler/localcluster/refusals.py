"""What the API answers when it refuses: `Status` bodies with their code, reason, message and details.

Every refusal is raised as one ApiError; the words of each message are those of the recorded API server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .resources import Resource


@dataclass(frozen=True, slots=True)
class Cause:
    """One field that is wrong: the API's reason word, a sentence, and the field's path."""

    reason: str
    message: str
    field: str

    def as_json(self) -> dict[str, str]:
        """The cause as it stands in `details.causes`; empty parts are left out."""
        return {
            key: value
            for key, value in (("reason", self.reason), ("message", self.message), ("field", self.field))
            if value
        }


class ApiError(Exception):
    """A request refused: `code` is the HTTP status, the rest the fields of the `Status` body."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        continue_token: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.details, self.headers, self.continue_token = details, headers, continue_token

    def status(self) -> dict[str, Any]:
        """The `Status` object that is sent."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": self.continue_token} if self.continue_token else {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        body["code"] = self.code
        return body


def success(**details: str) -> dict[str, Any]:
    """The `Status` body of success, as eviction and some deletes answer."""
    body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if details:
        body["details"] = details
    return body


def _details(resource: Resource, name: str, **more: Any) -> dict[str, Any]:
    details: dict[str, Any] = {"name": name} if name else {}
    if resource.group:
        details["group"] = resource.group
    return details | {"kind": resource.plural} | more


def not_found(resource: Resource, name: str) -> ApiError:
    """404: no object of that name."""
    message = f'{resource.qualified} "{name}" not found'
    return ApiError(404, "NotFound", message, details=_details(resource, name))


def already_exists(resource: Resource, name: str) -> ApiError:
    """409: the name is taken."""
    message = f'{resource.qualified} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details=_details(resource, name))


def modified_meanwhile(resource: Resource, name: str) -> ApiError:
    """409: the version that the writer read is not the last one."""
    message = (
        f'Operation cannot be fulfilled on {resource.qualified} "{name}": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    return ApiError(409, "Conflict", message, details=_details(resource, name))


def precondition_failed(resource: Resource, name: str, field: str, wanted: str, found: str) -> ApiError:
    """409: a delete's precondition on uid or resourceVersion does not hold."""
    message = (
        f'Operation cannot be fulfilled on {resource.kind} "{name}": the {field} in the precondition '
        f"({wanted}) does not match the {field} in record ({found}). "
        "The object might have been " + ("deleted and then recreated" if field == "UID" else "modified")
    )
    return ApiError(409, "Conflict", message, details={"name": name, "kind": resource.kind})


def invalid(resource: Resource, name: str, causes: list[Cause]) -> ApiError:
    """422: the object breaks rules of its kind; one cause per rule."""
    sentences = [f"{cause.field}: {cause.message}" for cause in causes]
    listed = sentences[0] if len(sentences) == 1 else f"[{', '.join(sentences)}]"
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    details: dict[str, Any] = {"name": name} if name else {}
    if resource.group:
        details["group"] = resource.group
    details |= {"kind": resource.kind, "causes": [cause.as_json() for cause in causes]}
    return ApiError(422, "Invalid", f'{kind} "{name}" is invalid: {listed}', details=details)


def forbidden(resource: Resource, name: str, why: str, causes: list[Cause] | None = None) -> ApiError:
    """403: not allowed, by rights or by admission."""
    subject = f'{resource.qualified} "{name}"' if name else resource.qualified
    details = _details(resource, name)
    if causes:
        details["causes"] = [cause.as_json() for cause in causes]
    return ApiError(403, "Forbidden", f"{subject} is forbidden: {why}", details=details)


def bad_request(message: str) -> ApiError:
    """400: the request cannot be read."""
    return ApiError(400, "BadRequest", message)


def undecodable(resource: Resource, why: str) -> ApiError:
    """400: the body cannot be read as an object of this kind."""
    version, kind = resource.version, resource.kind
    return bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {why}')


def method_not_allowed() -> ApiError:
    """405: the resource has no such verb."""
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, details={})


def unknown_resource() -> ApiError:
    """404: no such group, version or resource."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", details={})


def too_large_version(asked: int, current: int) -> ApiError:
    """504: a list was asked not older than a version that does not exist yet."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return ApiError(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {asked}, current: {current}",
        details={"causes": [cause], "retryAfterSeconds": 1},
        headers=(("retry-after", "1"),),
    )


def expired(message: str, continue_token: str | None = None) -> ApiError:
    """410: the version asked for is compacted away."""
    return ApiError(410, "Expired", message, continue_token=continue_token)
