"""TLS of the door: certificate, key and, for mutual TLS, the authority of the clients; read again when they change.

They are asked for at every handshake. Files that do not fit together (a change half done) leave what was good before,
and the next handshake tries again.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from ottoscaler.errors import SettingsError
from ottoscaler.log import log
from ottoscaler.rpc.watched_files import WatchedFiles
from ottoscaler.settings import Settings


def load_certificates(settings: Settings) -> Certificates | None:
    """What the settings ask for; None: plain text. Raises `SettingsError`."""
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
    try:
        return Certificates(cert, key, client_ca)
    except (OSError, ValueError) as error:
        raise SettingsError(
            [f"GRPC_TLS_CERT is {cert!r}, expected a certificate that can be served: {error}"]
        ) from error


class Certificates:
    """Three files of PEM text; `client_ca` may be None. Making one raises OSError, and ValueError for what is no PEM or
    does not fit together.
    """

    def __init__(self, cert: str, key: str, client_ca: str | None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._files = WatchedFiles([path for path in (cert, key, client_ca) if path is not None])
        self._problem = ""
        self._context = self._read()

    def context(self) -> ssl.SSLContext:
        """For one handshake: what the files say, or said when they last fitted together."""
        if self._files.has_changed() or self._problem:
            self._read_again()
        return self._context

    def _read_again(self) -> None:
        try:
            self._context = self._read()
        except (OSError, ValueError) as error:
            if str(error) != self._problem:
                self._problem = str(error)
                words = "the certificate is kept as it was: the new one cannot be used"
                log.error(words, is_change=True, reason=self._problem)
        else:
            self._problem = ""
            log.info("certificate read again", file=self._cert)

    def _read(self) -> ssl.SSLContext:
        contents = self._contents()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["h2"])
        context.num_tickets = 0  # they would be sent to clients that may have gone; calls share one connection
        try:
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except ssl.SSLError as error:
            raise ValueError(f"{self._cert} and {self._key} are not a certificate and its key ({error})") from error
        if (client_ca := contents[2]) is not None:
            self._require(context, client_ca)
        if self._contents() != contents:
            raise ValueError("they are being changed")  # so that they may not belong together
        return context

    def _require(self, context: ssl.SSLContext, client_ca: bytes) -> None:
        try:
            context.load_verify_locations(cadata=client_ca.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(f"{self._client_ca} has no certificates ({error})") from error
        context.verify_mode = ssl.CERT_REQUIRED

    def _contents(self) -> tuple[bytes, bytes, bytes | None]:
        client_ca = None if self._client_ca is None else Path(self._client_ca).read_bytes()
        return Path(self._cert).read_bytes(), Path(self._key).read_bytes(), client_ca


def _no_password() -> str:
    raise ValueError("the key is encrypted, which cannot be served")
