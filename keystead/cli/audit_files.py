"""Files and keys that a user names on the command line of ``keystead audit``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from audit.errors import MalformedError
from audit.note import NoteVerifier
from keystead.cli.exits import UsageError

_MAX_FILE: Final = 2 << 20


def read_file(path: Path, option: str) -> bytes:
    """The bytes of a file that a user named.

    Raises:
        UsageError: it cannot be read, or is too large to be what it should be.
    """
    try:
        if path.stat().st_size > _MAX_FILE:
            raise UsageError(f"{option} {path}: larger than {_MAX_FILE} bytes; this is something else")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}") from None


def read_verifier(text: str) -> NoteVerifier:
    """The log's verifier key: itself, or a file that holds it on one line.

    Raises:
        UsageError: it is neither.
    """
    path = Path(text)
    try:
        if "+" not in text or path.is_file():
            text = read_file(path, "--key").decode("utf-8").strip()
        return NoteVerifier.parse(text)
    except (MalformedError, UnicodeDecodeError) as error:
        raise UsageError(f"--key: not a verifier key NAME+KEYID+BASE64, and no file that holds one ({error})") from None
