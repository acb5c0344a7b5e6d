"""Exec credential plugins: a command that prints an ExecCredential (client.authentication.k8s.io v1 and v1beta1).

What it printed is kept until its expirationTimestamp, or until the API answers 401. It runs with a time limit, and one
at a time; it has no terminal, so a plugin that must ask somebody fails with its own words.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import trio

from ottoscaler.errors import SettingsError, Unavailable
from ottoscaler.kube.access import ClientCertificate
from ottoscaler.secret import Secret

API_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
LIMIT_SECONDS = 30.0
"""A plugin that asks a cloud takes a second or two; one that takes this long waits for somebody who is not there."""
EARLY_SECONDS = 10.0
"""So long before a token's end it is replaced, for a request on its way and clocks that differ."""


class ExecSpec(NamedTuple):
    """What the kubeconfig says of a plugin; `environment` is added to ours and may hold secrets."""

    command: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    api_version: str
    install_hint: str
    wants_cluster: bool


class ExecCredential(NamedTuple):
    """What a plugin gave; `expires_at` in seconds since 1970, None = until the API refuses it."""

    token: Secret | None
    certificate: ClientCertificate | None
    expires_at: float | None


def read_exec_spec(value: object, folder: Path) -> ExecSpec:
    """Read the `exec` mapping of a user; `folder` is the kubeconfig's. ValueError says which part is wrong."""
    if not isinstance(value, dict):
        raise ValueError("is no mapping, expected one with command and apiVersion")
    command, version = value.get("command"), value.get("apiVersion")
    if not isinstance(command, str) or not command:
        raise ValueError("has no command, expected the plugin's name or path")
    if version not in API_VERSIONS:
        raise ValueError(f"has the apiVersion {version!r}, expected one of: {', '.join(API_VERSIONS)}")
    if value.get("interactiveMode") == "Always":
        raise ValueError("has the interactiveMode 'Always', expected Never or IfAvailable (there is no terminal)")
    arguments = value.get("args") or []
    if not isinstance(arguments, list) or not all(isinstance(argument, str) for argument in arguments):
        raise ValueError("has args that are something else, expected a list of texts")
    try:
        environment = {pair["name"]: pair["value"] for pair in value.get("env") or []}
    except (TypeError, KeyError) as error:
        raise ValueError("has an env that is something else, expected a list of name and value") from error
    if "/" in command:
        command = str(folder / command)
    wants_cluster = value.get("provideClusterInfo") is True
    hint = str(value.get("installHint") or "").strip()
    return ExecSpec(command, tuple(arguments), environment, version, hint, wants_cluster)


class ExecPlugin:
    """Credentials from a plugin; run when first needed, again when they end or are refused."""

    def __init__(
        self,
        spec: ExecSpec,
        environ: Mapping[str, str],
        *,
        cluster: Mapping[str, str] | None = None,
        where: str = "the plugin's command",
        limit: float = LIMIT_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._spec = spec
        self._environ = environ
        self._cluster = cluster or {}
        self._where = where
        self._limit = limit
        self._now = now
        self._kept: ExecCredential | None = None
        self._loaded: ClientCertificate | None = None
        self._runs = 0
        self._one = trio.Lock()

    def __repr__(self) -> str:
        return f"token from {self._spec.command}"

    async def token(self, *, fresh: bool = False) -> Secret | None:
        """The plugin's token; Unavailable where it failed, SettingsError where it never could be run."""
        if self._is_due() or fresh:
            runs = self._runs
            async with self._one:
                if self._runs == runs:  # else somebody else's run was later than our question
                    self._kept = await self._run()
                    self._runs += 1
        return self._kept.token if self._kept else None

    def certify(self, context: ssl.SSLContext) -> None:
        """Show the plugin's certificate in the next handshakes, once for each that it gives."""
        certificate = self._kept.certificate if self._kept else None
        if certificate is not None and certificate != self._loaded:
            try:
                certificate.load_into(context)
            except ValueError as error:
                raise Unavailable(
                    f"{self._spec.command} gave a client certificate that cannot be used: {error}"
                ) from error
            self._loaded = certificate

    def _is_due(self) -> bool:
        if self._kept is None:
            return True
        return self._kept.expires_at is not None and self._now() >= self._kept.expires_at - EARLY_SECONDS

    async def _run(self) -> ExecCredential:
        command = [self._spec.command, *self._spec.arguments]
        with trio.move_on_after(self._limit) as scope:
            try:
                done = await trio.run_process(
                    command,
                    env=self._environment(),
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                    deliver_cancel=_kill,
                )
            except OSError as error:
                raise self._missing(error) from error
        if scope.cancelled_caught:
            raise Unavailable(f"{self._spec.command} gave no credentials within {self._limit:g} s")
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:300]
            raise Unavailable(
                f"{self._spec.command} failed with exit code {done.returncode}: {said or 'it said nothing'}"
            )
        try:
            return _read_credential(done.stdout, self._spec.api_version)
        except ValueError as error:
            raise Unavailable(f"{self._spec.command} printed {error}") from error

    def _environment(self) -> dict[str, str]:
        spec: dict[str, Any] = {"interactive": False}
        if self._spec.wants_cluster:
            spec["cluster"] = dict(self._cluster)
        info = {"apiVersion": self._spec.api_version, "kind": "ExecCredential", "spec": spec}
        base = self._environ or os.environ
        return {**base, **self._spec.environment, "KUBERNETES_EXEC_INFO": msgspec.json.encode(info).decode()}

    def _missing(self, error: OSError) -> SettingsError | Unavailable:
        """A wrong setting; but one that ran before is being replaced, and will be there again."""
        hint = f" ({self._spec.install_hint})" if self._spec.install_hint else ""
        words = f"{self._spec.command!r}, expected a credential plugin that can be run: {error.strerror}{hint}"
        problem = f"KUBECONFIG: {self._where} is {words}"
        return SettingsError([problem]) if self._kept is None else Unavailable(problem)


async def _kill(process: trio.Process) -> None:
    """End a plugin at once: it holds nothing that must be put in order, and a drain does not wait for it."""
    process.kill()


def _read_credential(printed: bytes, api_version: str) -> ExecCredential:
    """Read what a plugin printed; ValueError completes the sentence "the plugin printed ..." without the secret."""
    try:
        document = msgspec.json.decode(printed)
    except msgspec.DecodeError:
        raise ValueError("no JSON, expected an ExecCredential") from None
    if not isinstance(document, dict) or document.get("kind") != "ExecCredential":
        raise ValueError("no ExecCredential")
    if document.get("apiVersion") != api_version:
        raise ValueError(f"the apiVersion {document.get('apiVersion')!r}, expected {api_version}")
    status = document.get("status")
    status = status if isinstance(status, dict) else {}
    token, certificate, key = (status.get(name) for name in ("token", "clientCertificateData", "clientKeyData"))
    if not token and not (certificate and key):
        raise ValueError("an ExecCredential without a token or certificate")
    pair = ClientCertificate(certificate, Secret(key)) if certificate and key else None
    return ExecCredential(Secret(token) if token else None, pair, _expiry(status.get("expirationTimestamp")))


def _expiry(text: object) -> float | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        raise ValueError(f"the expirationTimestamp {text!r}, expected an RFC 3339 time") from None
