"""TLS of the door: certificate, key and, for mutual TLS, the authority of the clients; read again when they change.

gRPC asks for them at every handshake, in one of its threads. Files that do not fit together (a change half done)
leave what was good before, and the next handshake tries again.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from ottoscaler.errors import SettingsError
from ottoscaler.log import log
from ottoscaler.rpc.watched_files import WatchedFiles
from ottoscaler.settings import Settings


def load_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """The credentials that the settings ask for; None: plain text. Raises `SettingsError`."""
    cert, key, client_ca = settings.grpc_tls_cert, settings.grpc_tls_key, settings.grpc_tls_client_ca
    if cert is None and key is None:
        if client_ca is not None:
            raise SettingsError(
                [f"GRPC_TLS_CLIENT_CA is {client_ca!r}, expected GRPC_TLS_CERT and GRPC_TLS_KEY with it"]
            )
        return None
    if cert is None or key is None:
        name, value, other = ("CERT", cert, "KEY") if key is None else ("KEY", key, "CERT")
        raise SettingsError([f"GRPC_TLS_{name} is {value!r}, expected GRPC_TLS_{other} with it"])
    files = CertificateFiles(cert, key, client_ca)
    try:
        first = files.read()
    except (OSError, ValueError) as error:
        raise SettingsError(
            [f"GRPC_TLS_CERT is {cert!r}, expected a certificate that can be served: {error}"]
        ) from error
    return grpc.dynamic_ssl_server_credentials(
        first,
        files.read_if_changed,  # type: ignore[arg-type]  # None is allowed, though its stubs do not say so
        require_client_authentication=client_ca is not None,
    )


class CertificateFiles:
    """Three files of PEM text; `client_ca` may be None."""

    def __init__(self, cert: str, key: str, client_ca: str | None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._files = WatchedFiles([path for path in (cert, key, client_ca) if path is not None])
        self._problem = ""

    def read(self) -> grpc.ServerCertificateConfiguration:
        """What the files say. Raises OSError, or ValueError where they do not fit together."""
        cert, key, client_ca = contents = self._contents()
        self._check(client_ca)
        if self._contents() != contents:
            raise ValueError("they are being changed")  # so that what was checked is not what was read
        return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=client_ca)

    def _contents(self) -> tuple[bytes, bytes, bytes | None]:
        client_ca = None if self._client_ca is None else Path(self._client_ca).read_bytes()
        return Path(self._cert).read_bytes(), Path(self._key).read_bytes(), client_ca

    def _check(self, client_ca: bytes | None) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except ssl.SSLError as error:
            raise ValueError(f"{self._cert} and {self._key} are not a certificate and its key ({error})") from error
        try:
            if client_ca is not None:
                context.load_verify_locations(cadata=client_ca.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(f"{self._client_ca} has no certificates ({error})") from error

    def read_if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """For gRPC, at a handshake: what has changed; None leaves it as it is."""
        if not self._files.has_changed() and not self._problem:
            return None
        try:
            read = self.read()
        except (OSError, ValueError) as error:
            if str(error) != self._problem:
                self._problem = str(error)
                words = "the certificate is kept as it was: the new one cannot be used"
                log.error(words, is_change=True, reason=self._problem)
            return None
        self._problem = ""
        log.info("certificate read again", file=self._cert)
        return read


def _no_password() -> str:
    raise ValueError("the key is encrypted, which cannot be served")
