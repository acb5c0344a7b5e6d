"""The file with a bearer token that `--token-file` names."""

from pathlib import Path

from ottoscaler.errors import FixYourCall


def read_token(file: Path) -> str:
    """The token. FixYourCall where none can be read: it names flag and file, and never shows what is in it."""
    try:
        token = file.read_bytes().strip().decode("ascii", errors="replace")
    except OSError as error:
        raise FixYourCall(f"--token-file is {str(file)!r}: {error.strerror}") from error
    if not (token and token.isascii() and token.isprintable()):
        raise FixYourCall(
            f"--token-file is {str(file)!r}: expected a token in it, one line of visible ASCII characters"
        )
    return token
