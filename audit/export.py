"""Records as rows of CSV (RFC 4180), and what all forms of export share.

Every form is a stream: one entry in, one row or at most one event out, nothing kept. The others are `audit.parquet`,
`audit.ocsf` and `audit.openlineage`.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

from audit.errors import ExportError
from audit.query import Entry
from audit.records import Record

CSV_COLUMNS: Final = (
    "entry",
    "entry_hash",
    "time",
    "kind",
    "result",
    "reasons",
    "actor_role",
    "actor_name",
    "actor_tenant",
    "tenant",
    "job",
    "user",
    "node",
    "hardware",
    "site",
    "jurisdiction",
    "assets",
    "lease",
    "expires_at",
    "policy_digest",
    "input_digest",
)
"""Columns of a CSV export; lists are joined by spaces, which no member of one holds."""

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")

MIN_INSTANT: Final = -62_135_596_800
"""The year 1, in seconds since the Unix epoch: the earliest that RFC 3339 and other tools can say."""

MAX_INSTANT: Final = 253_402_300_799
"""The end of the year 9999, the latest that they can say."""


def check_instant(seconds: int) -> int:
    """`seconds`, an instant that RFC 3339 can say.

    Raises:
        ExportError: it cannot; a record holds any 53-bit integer.
    """
    if not MIN_INSTANT <= seconds <= MAX_INSTANT:
        raise ExportError(
            f"instant {seconds}: not between the years 1 and 9999; export as jsonl, which has plain numbers"
        )
    return seconds


def instant(seconds: int) -> str:
    """RFC 3339, UTC.

    Raises:
        ExportError: it has no such form.
    """
    return dt.datetime.fromtimestamp(check_instant(seconds), dt.UTC).isoformat().replace("+00:00", "Z")


def expiry(record: Record) -> int | None:
    """Until when the record lets a lease live, where it says so.

    Raises:
        ExportError: that instant has no RFC 3339 form.
    """
    value = record.detail.get("expires_at")
    return check_instant(value) if type(value) is int else None


def job_user(record: Record) -> str | None:
    """Whom the job ran for, where its scheduler declared it."""
    value = record.detail.get("user")
    return value if isinstance(value, str) else None


def csv_row(entry: Entry, record: Record) -> tuple[str, ...]:
    """The cells of an entry under `CSV_COLUMNS`.

    A cell that a spreadsheet would take for a formula begins with an apostrophe (OWASP, CSV Injection): names are
    chosen by others.

    Raises:
        ExportError: an instant has no RFC 3339 form.
    """
    expires_at = expiry(record)
    values = (
        str(entry.index),
        entry.entry_hash.hex(),
        instant(record.time),
        record.kind.value,
        record.result.value,
        " ".join(record.reasons),
        record.actor.role,
        record.actor.name,
        record.actor.tenant,
        record.tenant,
        record.job,
        job_user(record),
        record.node,
        " ".join(record.hardware),
        record.site,
        record.jurisdiction,
        " ".join(record.assets),
        record.lease,
        None if expires_at is None else instant(expires_at),
        record.policy_digest,
        record.input_digest,
    )
    return tuple(_cell(value) for value in values)


def _cell(value: str | None) -> str:
    text = value or ""
    return f"'{text}" if text.startswith(_FORMULA) else text
