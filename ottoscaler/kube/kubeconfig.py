"""Kubeconfig files: several merged as kubectl does, one context chosen, every mistake named by file and field.

Of each name the first file that has it wins, and so does the first `current-context`. Relative paths are relative to
the file they stand in. What we cannot honour (impersonation, auth-provider, passwords) is refused, not ignored.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ottoscaler.errors import SettingsError
from ottoscaler.kube.access import Access, ClientCertificate, Trust, check_trust
from ottoscaler.kube.credentials import Credentials, NoCredentials, StaticToken, TokenFile
from ottoscaler.kube.exec_plugin import ExecPlugin, read_exec_spec
from ottoscaler.kube.yaml_file import read_yaml
from ottoscaler.secret import Secret

UNSUPPORTED = {
    "auth-provider": "Kubernetes took it out in 1.26; use exec",
    "username": "Kubernetes took basic authentication out in 1.19",
    "as": "Ottoscaler impersonates nobody",
}


class Section(NamedTuple):
    """One mapping of a kubeconfig, with the file and the field it stands in, for messages and relative paths."""

    values: Mapping[str, Any]
    file: Path
    field: str

    def fail(self, key: str, problem: str) -> SettingsError:
        """An error about one key."""
        where = f"{self.field}.{key}" if self.field else key
        return SettingsError([f"KUBECONFIG: field {where} of {self.file} {problem}"])

    def text(self, key: str) -> str:
        """The text of a key; empty where it is missing."""
        value = self.values.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.fail(key, f"is {value!r}, expected a text")
        return value

    def is_set(self, key: str) -> bool:
        """The truth of a key; False where it is missing."""
        value = self.values.get(key)
        if not isinstance(value, bool | None):
            raise self.fail(key, f"is {value!r}, expected true or false")
        return bool(value)

    def path(self, key: str) -> Path | None:
        """The path of a key, made absolute."""
        return self.file.parent / Path(self.text(key)).expanduser() if self.text(key) else None

    def pem(self, key: str) -> str:
        """PEM text, from `<key>-data` (base64) or else from the file that `<key>` names; empty where neither is."""
        if data := self.text(f"{key}-data"):
            try:
                return base64.b64decode(data, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError) as error:
                raise self.fail(f"{key}-data", "is no base64 of a text, expected base64 of PEM") from error
        path = self.path(key)
        if path is None:
            return ""
        try:
            return path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no text"
            raise self.fail(key, f"is {str(path)!r}, expected a file of PEM text: {reason}") from error


class Merged(NamedTuple):
    """Several files as one: sections by name, and the first `current-context` with the file it stands in."""

    clusters: dict[str, Section]
    users: dict[str, Section]
    contexts: dict[str, Section]
    current: str
    first: Path


def load_kubeconfig(paths: str, context: str | None, environ: Mapping[str, str]) -> Access:
    """Read the files of a `:` list, choose a context (None = the current one) and say how to reach its cluster."""
    merged = _merge(paths)
    chosen = _choose(merged, context)
    cluster = _named(merged.clusters, chosen, "cluster", "clusters")
    server = _server(cluster)
    trust = Trust(
        ca=cluster.pem("certificate-authority"),
        insecure=cluster.is_set("insecure-skip-tls-verify"),
        server_name=cluster.text("tls-server-name"),
    )
    if trust.insecure and trust.ca:
        raise cluster.fail(
            "insecure-skip-tls-verify", "is true beside a certificate-authority, expected one of them alone"
        )
    if trust.ca:
        check_trust(trust, f"KUBECONFIG: field {cluster.field}.certificate-authority of {cluster.file}")
    user = _named(merged.users, chosen, "user", "users") if chosen.text("user") else None
    return Access(
        server=server,
        namespace=chosen.text("namespace") or "default",
        trust=trust,
        credentials=_credentials(user, cluster, trust, environ) if user else NoCredentials(),
        certificate=_certificate(user) if user else None,
        proxy_url=_proxy(cluster, trust),
        origin=f"context {chosen.field[len('contexts[') : -len('].context')]} of {chosen.file}",
    )


def _merge(paths: str) -> Merged:
    """A file of a list may be missing, as with kubectl; all of them may not."""
    files = [Path(part).expanduser() for part in paths.strip().split(":") if part]
    there = [file for file in files if file.exists()] if len(files) > 1 else files
    if not there:
        raise SettingsError([f"KUBECONFIG is {paths.strip()!r}, expected files of which at least one exists"])
    merged = Merged({}, {}, {}, "", there[0])
    for file in there:
        document = _read(file)
        for kind, target in (("cluster", merged.clusters), ("user", merged.users), ("context", merged.contexts)):
            for name, section in _sections(document, kind):
                target.setdefault(name, section)
        merged = merged._replace(current=merged.current or document.text("current-context"))
    return merged


def _read(file: Path) -> Section:
    try:
        document = read_yaml(file)
    except ValueError as error:
        raise SettingsError([f"KUBECONFIG: {file} {error}, expected a kubeconfig"]) from error
    if not isinstance(document, dict):
        raise SettingsError([f"KUBECONFIG: {file} is no mapping, expected a kubeconfig (kind: Config)"])
    return Section(document, file, "")


def _sections(document: Section, kind: str) -> list[tuple[str, Section]]:
    items = document.values.get(f"{kind}s") or []
    if not isinstance(items, list):
        raise document.fail(f"{kind}s", f"is no list, expected a list of {kind}s")
    found = []
    for index, item in enumerate(items):
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str) or not name:
            raise document.fail(f"{kind}s[{index}].name", "is missing, expected a name")
        values = item.get(kind) or {}
        if not isinstance(values, dict):
            raise document.fail(f"{kind}s[{name}].{kind}", "is no mapping, expected one")
        found.append((name, Section(values, document.file, f"{kind}s[{name}].{kind}")))
    return found


def _choose(merged: Merged, context: str | None) -> Section:
    name = context or merged.current
    names = ", ".join(sorted(merged.contexts)) or "(there is none)"
    if not name:
        raise SettingsError(
            [f"KUBECONFIG: field current-context of {merged.first} is missing, expected one of: {names}"]
        )
    if name not in merged.contexts:
        what = f"the context asked of {merged.first}" if context else f"field current-context of {merged.first}"
        raise SettingsError([f"KUBECONFIG: {what} is {name!r}, expected one of: {names}"])
    return merged.contexts[name]


def _named(sections: dict[str, Section], chosen: Section, key: str, kind: str) -> Section:
    name = chosen.text(key)
    names = ", ".join(sorted(sections)) or "(there is none)"
    if not name:
        raise chosen.fail(key, f"is missing, expected one of the {kind}: {names}")
    if name not in sections:
        raise chosen.fail(key, f"is {name!r}, expected one of the {kind}: {names}")
    return sections[name]


def _server(cluster: Section) -> str:
    server = cluster.text("server")
    if not server:
        raise cluster.fail("server", "is missing, expected a URL such as https://10.0.0.1:6443")
    if not _is_url(server, ("https", "http")):
        raise cluster.fail("server", f"is {server!r}, expected a URL such as https://10.0.0.1:6443")
    return server.rstrip("/")


def _proxy(cluster: Section, trust: Trust) -> str:
    """The proxy's URL; its own value is not repeated in messages, for it may hold a password."""
    proxy = cluster.text("proxy-url")
    if proxy and not _is_url(proxy, ("http", "https")):
        raise cluster.fail("proxy-url", "is no such URL, expected that of an http or https proxy")
    if proxy and trust.server_name:
        raise cluster.fail("tls-server-name", "is set beside proxy-url, expected one of them alone")
    return proxy


def _is_url(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in schemes and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _certificate(user: Section) -> ClientCertificate | None:
    certificate, key = user.pem("client-certificate"), user.pem("client-key")
    if not certificate and not key:
        return None
    for name, value in (("client-certificate", certificate), ("client-key", key)):
        if not value:
            raise user.fail(name, "is missing, expected client-certificate and client-key together")
    pair = ClientCertificate(certificate, Secret(key))
    try:
        pair.load_into(Trust().open_context())
    except ValueError as error:
        raise user.fail("client-certificate", f"is of no use, expected one for client-key: {error}") from error
    return pair


def _credentials(user: Section, cluster: Section, trust: Trust, environ: Mapping[str, str]) -> Credentials:
    """A token wins over a token file, both over a plugin, as with kubectl."""
    for key, why in UNSUPPORTED.items():
        if user.values.get(key):
            raise user.fail(key, f"is set and not supported, expected none: {why}")
    if token := user.text("token"):
        return StaticToken(Secret(token))
    if path := user.path("tokenFile"):
        if not path.is_file():
            raise user.fail("tokenFile", f"is {str(path)!r}, expected a file that exists")
        return TokenFile(path)
    if user.values.get("exec") is None:
        return NoCredentials()
    try:
        spec = read_exec_spec(user.values["exec"], user.file.parent)
    except ValueError as error:
        raise user.fail("exec", str(error)) from error
    info = {
        "server": cluster.text("server"),
        "certificate-authority-data": base64.b64encode(trust.ca.encode()).decode(),
    }
    cluster_info = {name: value for name, value in info.items() if value}
    where = f"field {user.field}.exec.command of {user.file}"
    return ExecPlugin(spec, environ, cluster=cluster_info, where=where)
