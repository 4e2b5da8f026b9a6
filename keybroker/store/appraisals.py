"""Appraisals that can be run again, and the documents that many of them share, all by digest.

A document says when it was last used, to the start of a period (`PERIOD`), so that an appraisal writes nothing about
documents that another one of the period has named already. What no kept appraisal can have used is forgotten; there is
no table of who uses what.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Executable, bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from keybroker.errors import NotFoundError
from keybroker.store.rows import insert_if_absent, values
from keybroker.store.schema import APPRAISAL, APPRAISAL_DOCUMENT

PERIOD: Final = 30 * 86_400
"""Seconds. How exactly a document's last use is known, and so how much longer than an appraisal it may stay."""

SKEW: Final = 86_400
"""Seconds by which the clocks of replicas may differ."""

_BY_DIGEST: Final = select(APPRAISAL.c.content).where(APPRAISAL.c.digest == bindparam("digest"))
_BY_RESULT: Final = (
    select(APPRAISAL.c.digest)
    .where(APPRAISAL.c.result_digest == bindparam("result_digest"))
    .order_by(APPRAISAL.c.digest)
    .limit(1)
)
_USED_AT: Final = select(APPRAISAL_DOCUMENT.c.used_at).where(APPRAISAL_DOCUMENT.c.digest == bindparam("digest"))


@dataclass(frozen=True, slots=True, kw_only=True)
class AppraisalRow:
    """One appraisal.

    Attributes:
        digest: SHA-256 of the record.
        content: the record, compressed.
        result_digest: SHA-256 of the Attestation Result.
        appraised_at: its time.
    """

    digest: bytes
    content: bytes
    result_digest: bytes
    appraised_at: int


def period_of(now: int) -> int:
    """The start of the period that `now` lies in."""
    return now - now % PERIOD


def put(connection: Connection, row: AppraisalRow, *, documents: Mapping[bytes, bytes]) -> None:
    """Store an appraisal unless it is there, with those of its documents that this period has not named yet."""
    if documents:
        used_at = period_of(row.appraised_at)
        put_documents(connection, documents, used_at=used_at)
    insert_if_absent(connection, APPRAISAL, values(row))


def put_documents(connection: Connection, documents: Mapping[bytes, bytes], *, used_at: int) -> None:
    """Store documents by their SHA-256 digests, or say of those that are there that they are used."""
    # In one order everywhere, so that two replicas that store the same documents do not deadlock.
    rows = [{"digest": digest, "content": content, "used_at": used_at} for digest, content in sorted(documents.items())]
    if rows:
        connection.execute(_upsert(postgres=connection.dialect.name == "postgresql"), rows)


def _upsert(*, postgres: bool) -> Executable:
    insert = (postgresql.insert if postgres else sqlite.insert)(APPRAISAL_DOCUMENT)
    return insert.on_conflict_do_update(
        index_elements=[APPRAISAL_DOCUMENT.c.digest],
        set_={"used_at": insert.excluded.used_at},
        where=APPRAISAL_DOCUMENT.c.used_at < insert.excluded.used_at,
    )


def is_used(connection: Connection, digest: bytes, *, period: int) -> bool:
    """Is the document stored, and known to be used in `period` or later?"""
    used_at = connection.execute(_USED_AT, {"digest": digest}).scalar_one_or_none()
    return used_at is not None and used_at >= period


def get(connection: Connection, digest: bytes) -> bytes:
    """The compressed record whose digest is `digest`.

    Raises:
        NotFoundError: there is none, or it was forgotten (`limits.evidence_days`).
    """
    content = connection.execute(_BY_DIGEST, {"digest": digest}).scalar_one_or_none()
    if content is None:
        raise NotFoundError("appraisal", digest.hex())
    return bytes(content)


def find_by_result(connection: Connection, result_digest: bytes) -> bytes | None:
    """The digest of the appraisal that made an Attestation Result, by the result's; None where it is not kept."""
    digest = connection.execute(_BY_RESULT, {"result_digest": result_digest}).scalar_one_or_none()
    return None if digest is None else bytes(digest)


def get_document(connection: Connection, digest: bytes) -> bytes:
    """The document whose SHA-256 digest is `digest`.

    Raises:
        NotFoundError: there is none.
    """
    content = connection.execute(
        select(APPRAISAL_DOCUMENT.c.content).where(APPRAISAL_DOCUMENT.c.digest == digest)
    ).scalar_one_or_none()
    if content is None:
        raise NotFoundError("document of an appraisal", digest.hex())
    return bytes(content)


def forget_before(connection: Connection, time: int, *, limit: int) -> int:
    """Remove at most `limit` appraisals of before `time`, and as many documents that none since can have used.

    Returns:
        How many rows went.
    """
    old = select(APPRAISAL.c.digest).where(APPRAISAL.c.appraised_at < time).limit(limit)
    gone = connection.execute(delete(APPRAISAL).where(APPRAISAL.c.digest.in_(old))).rowcount
    # A use at `time` is on record as the start of its period, by the clock of another replica.
    unused = APPRAISAL_DOCUMENT.c.used_at < time - PERIOD - SKEW
    digests = select(APPRAISAL_DOCUMENT.c.digest).where(unused).limit(limit)
    # The condition again, for a row that another transaction has said meanwhile to be used.
    documents = delete(APPRAISAL_DOCUMENT).where(APPRAISAL_DOCUMENT.c.digest.in_(digests), unused)
    return gone + connection.execute(documents).rowcount
