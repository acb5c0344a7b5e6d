"""How to reach the API: its address, whom to trust, who we are.

In: the setting KUBECONFIG, a context, the environment. Out: an `Access`, which never shows a secret. A kubeconfig wins
over the access that a pod has in its cluster.
"""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ottoscaler.errors import SettingsError
from ottoscaler.kube.credentials import Credentials, NoCredentials, TokenFile
from ottoscaler.secret import Secret

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Trust:
    """What TLS to the API rests on: `ca` is PEM text (empty: the system's), `server_name` replaces the address's."""

    ca: str = ""
    insecure: bool = False
    server_name: str = ""

    def open_context(self) -> ssl.SSLContext:
        """A client context; made once, for reading certificates costs 20 ms and more."""
        context = ssl.create_default_context(cadata=self.ca or None)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A client certificate with its key, both PEM text."""

    certificate: str = field(repr=False)
    key: Secret

    def load_into(self, context: ssl.SSLContext) -> None:
        """Let `context` show this certificate from its next handshake on; ValueError where it is none.

        Python reads certificates from files only, so both go through one that only we can read, for a moment.
        """
        with tempfile.NamedTemporaryFile("w", prefix="ottoscaler-", suffix=".pem") as file:
            file.write(f"{self.certificate}\n{self.key.reveal()}\n")
            file.flush()
            try:
                context.load_cert_chain(file.name, password=_no_password)
            except (ssl.SSLError, OSError) as error:
                raise ValueError(f"certificate and key do not fit or cannot be read: {error}") from error


def _no_password() -> str:
    raise ssl.SSLError("the key has a password")


@dataclass(frozen=True, slots=True)
class Access:
    """Everything needed to talk to one API server as one user."""

    server: str
    namespace: str = "default"
    trust: Trust = field(default=Trust(), repr=False)
    credentials: Credentials = field(default=NoCredentials())
    certificate: ClientCertificate | None = field(default=None, repr=False)
    proxy_url: str = field(default="", repr=False)  # may hold a password
    origin: str = ""  # where this was read, in words


def load_access(
    kubeconfig: str | None, context: str | None, environ: Mapping[str, str], *, account: Path = SERVICE_ACCOUNT
) -> Access:
    """Find out how to reach the API: by `kubeconfig` (one file or several with `:` between) if given, else as a pod.

    `context` names a context of the kubeconfig, None = its current one. Raises SettingsError naming file and field.
    """
    if kubeconfig and kubeconfig.strip():
        from ottoscaler.kube.kubeconfig import load_kubeconfig  # YAML is not needed inside a cluster

        return load_kubeconfig(kubeconfig, context, environ)
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return _in_cluster(environ, account)
    raise SettingsError(["KUBECONFIG is unset and this is no pod of a cluster, expected the path of a kubeconfig file"])


def _in_cluster(environ: Mapping[str, str], account: Path) -> Access:
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "") or "443"
    files: dict[str, str] = {}
    for name, what in (("token", "the token"), ("ca.crt", "the CA")):
        try:
            files[name] = (account / name).read_text()
        except OSError as error:
            raise SettingsError(
                [f"{account / name}: {error.strerror}, expected {what} of the pod's service account"]
            ) from error
    try:
        namespace = (account / "namespace").read_text().strip()
    except OSError:
        namespace = ""
    trust = Trust(ca=files["ca.crt"])
    check_trust(trust, str(account / "ca.crt"))
    return Access(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=namespace or "default",
        trust=trust,
        credentials=TokenFile(account / "token"),
        origin="the pod's service account",
    )


def check_trust(trust: Trust, where: str) -> None:
    """Refuse a CA that is none at the start rather than at the first connection; `where` names it."""
    try:
        trust.open_context()
    except ssl.SSLError as error:
        raise SettingsError([f"{where} holds no certificate that can be read, expected PEM"]) from error
