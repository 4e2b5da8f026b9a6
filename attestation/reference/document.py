"""What every file that an operator declares trust by has in common: TOML or JSON, ``[about]``, and where it comes from.

::

    [about]
    issuer = "ACME security"            # whose word this is
    serial = 7                          # raised with every change; an older file is refused where a newer one was used
    issued = "2026-11-22T08:00:00Z"     # RFC 3339, in UTC
    expires = "2027-11-22T08:00:00Z"    # optional; from then on nothing is accepted by this file

Instants are texts and not TOML's datetimes, so that the same file can be written as JSON (RFC 8259).
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from attestation.errors import ManifestError
from keystead.toml import read_toml

MAX_FILE: Final = 1 << 20
"""Bytes of a file of reference values or advisories."""

MAX_SERIAL: Final = (1 << 63) - 1
"""The largest serial; it fits a signed 64-bit column."""

_INSTANT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")

Instant = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")]
"""An instant in a file: RFC 3339, in UTC, whole seconds."""

Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")]
"""A text of one line, so that it can stand in a finding."""


class Section(BaseModel):
    """Part of a file: every key is known and of exactly its type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


S = TypeVar("S", bound=Section)


class AboutSection(Section):
    """``[about]`` of reference values."""

    issuer: Line
    serial: Annotated[int, Field(ge=0, le=MAX_SERIAL)]
    issued: Instant
    expires: Instant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Whose word a file is, which of several, and for when; instants in seconds since the epoch.

    Attributes:
        issuer: who says so.
        serial: raised with every change.
        issued: from when on it holds.
        expires: from when on it holds no more; None where it says nothing about that.
    """

    issuer: str
    serial: int
    issued: int
    expires: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file as findings name it.

    Attributes:
        name: the file's name, as the configuration or the command line has it.
        digest: SHA-256 of the file's bytes.
        about: what it says about itself; None where it says nothing.
        signers: key ids of those whose signatures verified (`attestation.reference.signature.key_id`).
    """

    name: str
    digest: bytes
    about: About | None = None
    signers: tuple[str, ...] = ()

    @property
    def provenance(self) -> str:
        """Who vouches for the file: ``signed by KEY``, or ``unsigned``."""
        return f"signed by {' and '.join(self.signers)}" if self.signers else "unsigned"

    def __str__(self) -> str:
        serial = "" if self.about is None else f", serial {self.about.serial}"
        return f"{self.name}{serial}, {self.provenance}"


def read_document(data: bytes, section: type[S], *, name: str) -> S:
    """Read TOML, or JSON where the first character is a brace, as `section`; `name` names the file in errors.

    Raises:
        ManifestError: neither of the two, too large, or a key that is missing, unknown, twice there, of the wrong type
            or out of range.
    """
    if len(data) > MAX_FILE:
        raise ManifestError(f"{name}: longer than {MAX_FILE} bytes")
    form = "JSON" if data.lstrip(b" \t\r\n").startswith(b"{") else "TOML"
    try:
        text = data.decode("utf-8")
        document = _json(text) if form == "JSON" else read_toml(data, limit=MAX_FILE)
        return section.model_validate_json(json.dumps(document, allow_nan=False))
    except ValidationError as error:
        first = error.errors()[0]
        raise ManifestError(f"{name}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
    except TypeError as error:
        raise ManifestError(f"{name}: {error}; a date is written as a text: 2026-11-22T08:00:00Z") from None
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{name}: not {form}: {error}") from None


def _json(text: str) -> object:
    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key is there twice")
        return found

    return json.loads(text, object_pairs_hook=unique)


def seconds(text: str, *, where: str) -> int:
    """Seconds since the epoch of an `Instant`; `where` names it in errors.

    Raises:
        ManifestError: another form, or no such day or time.
    """
    if not _INSTANT.match(text):
        raise ManifestError(f"{where}: {text!r:.40} is not of the form 2026-11-22T08:00:00Z")
    try:
        return int(dt.datetime.fromisoformat(text).timestamp())
    except ValueError as error:
        raise ManifestError(f"{where}: {text}: {error}") from None


def instant(value: int) -> str:
    """An instant, seconds since the epoch, as it stands in a file."""
    return dt.datetime.fromtimestamp(value, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_about(section: AboutSection, *, name: str) -> About:
    """What ``[about]`` says.

    Raises:
        ManifestError: an instant that is none, or a file that ends before it begins.
    """
    issued = seconds(section.issued, where=f"{name}: about.issued")
    expires = None if section.expires is None else seconds(section.expires, where=f"{name}: about.expires")
    if expires is not None and expires <= issued:
        raise ManifestError(f"{name}: about.expires is not after about.issued")
    return About(issuer=section.issuer, serial=section.serial, issued=issued, expires=expires)
