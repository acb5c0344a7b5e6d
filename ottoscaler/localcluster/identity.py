"""What a cluster is known by: its certificate authority and its token, kept in the data folder.

A cluster that is started again there, on the same port, is trusted and entered by the same kubeconfig as before.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import trustme

_END_OF_CERTIFICATE = b"-----END CERTIFICATE-----\n"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signs the server's certificate, and the administrator's token."""

    authority: trustme.CA
    token: str


def load_identity(data_dir: Path, token: str | None = None) -> Identity:
    """The identity kept in a folder, made and kept (mode 0600) where there is none; `token` overrules the kept one."""
    authority_file, token_file = data_dir / "authority.pem", data_dir / "token"
    if authority_file.exists():
        certificate, end, key = authority_file.read_bytes().partition(_END_OF_CERTIFICATE)
        authority = trustme.CA.from_pem(certificate + end, key)
    else:
        authority = trustme.CA()
        _keep(authority_file, authority.cert_pem.bytes() + authority.private_key_pem.bytes())
    if token is None and token_file.exists():
        token = token_file.read_text()
    token = token or secrets.token_urlsafe(32)
    _keep(token_file, token.encode())
    return Identity(authority, token)


def _keep(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
