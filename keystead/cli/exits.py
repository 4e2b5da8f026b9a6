"""Exit codes, and the one place where errors become them.

0 = yes. 1 = no: verification failed, access was denied, something differs. 2 = wrong use, or no answer could be had.
130 = interrupted (128 + SIGINT, as shells have it).

Errors are told apart by their stable `code`, never by importing the rooms that raise them: the command line of
someone who installed one room only must work without the others.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Final

YES: Final = 0
NO: Final = 1
UNDECIDED: Final = 2
INTERRUPTED: Final = 130

DEBUG_VARIABLE: Final = "KEYSTEAD_DEBUG"

ROOMS: Final = frozenset({"keystead", "attestation", "policy", "audit", "sealed", "keybroker", "attester"})

ANSWERS_NO: Final = frozenset(
    {
        # A decision: the broker or a policy refused.
        "ACCESS_DENIED",
        "PACK_REJECTED",
        # What was opened or verified is not what it is said to be.
        "SEALED_NOT_AUTHENTIC",
        "SEALED_MANIFEST_NOT_AUTHENTIC",
        "UNWRAP_FAILED",
        "BAD_NOTE_SIGNATURE",
        "BAD_MERKLE_PROOF",
        "BAD_REFERENCE_SIGNATURE",
        "LOG_UNWITNESSED",
    }
)
"""Codes of errors that answer the question with "no". Every other error means that there is no answer."""

EXTRAS: Final = {
    "attestation": "attestation",
    "policy": "policy",
    "audit": "audit",
    "sealed": "sealed",
    "keybroker": "broker",
    "attester": "attester",
    "awscrt": "attestation",
    "jwt": "attestation",
    "wasmtime": "policy",
    "sqlalchemy": "audit",
    "alembic": "broker",
    "grpc": "broker",
    "grpc_health": "broker",
    "grpc_reflection": "broker",
    "google": "broker",
    "prometheus_client": "broker",
    "psycopg": "broker",
    "structlog": "broker",
    "obstore": "objectstore",
    "waitress": "cli",
    "pydantic": "cli",
    "rfc8785": "cli",
    "rich": "cli",
    "typer": "cli",
}
"""Which pip extra brings a top-level module."""


class UsageError(Exception):
    """The command was used wrongly; the text says how to use it."""

    code = "WRONG_USE"


def error_code(error: BaseException) -> str | None:
    """The stable code of one of Keystead's own errors, or None for any other."""
    code = getattr(type(error), "code", None)
    room = type(error).__module__.partition(".")[0]
    return code if isinstance(code, str) and room in ROOMS else None


def exit_code(error: BaseException) -> int:
    """The exit code for `error`: `NO` where it is an answer, else `UNDECIDED`, or `INTERRUPTED`."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return NO if error_code(error) in ANSWERS_NO else UNDECIDED


def describe(error: BaseException) -> tuple[str, str]:
    """A code and one line for people, for any error whatever.

    Keystead's own errors say what is wrong and how to mend it. For the operating system's the file is named. For
    anything else, which would be a defect in Keystead, the line says how to see where it came from.
    """
    if (code := error_code(error)) is not None:
        return code, str(error)
    if isinstance(error, ModuleNotFoundError) and (extra := EXTRAS.get((error.name or "").partition(".")[0])):
        return "EXTRA_MISSING", f"this command needs {error.name}: pip install 'keystead[{extra}]'"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return "INPUT_OUTPUT", f"{where}{error.strerror or error}"
    if isinstance(error, sqlite3.DatabaseError):
        return "INPUT_OUTPUT", f"database: {error}"
    return "UNEXPECTED", f"{type(error).__name__}: {error} (set {DEBUG_VARIABLE}=1 to see where)"


def wants_traceback() -> bool:
    """True where the user asked for tracebacks by ``KEYSTEAD_DEBUG=1``."""
    return os.environ.get(DEBUG_VARIABLE, "") not in {"", "0"}
