"""Documents by digest: decision inputs and what they refer to, each stored once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, select

from keybroker.errors import NotFoundError
from keybroker.store.rows import insert_all_if_absent
from keybroker.store.schema import DOCUMENT
from keystead.binding import sha256

_BY_DIGEST: Final = select(DOCUMENT.c.content).where(DOCUMENT.c.digest == bindparam("digest"))


def put(connection: Connection, content: bytes, *, now: int) -> bytes:
    """Store `content` unless it is there; returns its SHA-256 digest."""
    return _put_all(connection, [content], now=now)[0]


def get(connection: Connection, digest: bytes) -> bytes:
    """The document whose SHA-256 digest is `digest`.

    Raises:
        NotFoundError: there is none.
    """
    content = connection.execute(_BY_DIGEST, {"digest": digest}).scalar_one_or_none()
    if content is None:
        raise NotFoundError("document", digest.hex())
    return bytes(content)


def put_decision(
    connection: Connection, *, appraisal: bytes, release: Sequence[bytes], evidence: bytes = b"", now: int
) -> bytes:
    """Store the inputs of one decision, each once, and the document that names them (`decision_index`).

    Args:
        connection: of the transaction that records the decision.
        appraisal: the appraisal policy's canonical input; empty where there was none.
        release: the release policy's, one for each asset.
        evidence: digest of the appraisal's record (`keybroker.store.appraisals`); empty where there is none.
        now: integer seconds since the Unix epoch.

    Returns:
        The digest of the document that names them.
    """
    index = decision_index(appraisal=appraisal, release=release, evidence=evidence)
    return _put_all(connection, [index, *filter(None, (appraisal, *release))], now=now)[0]


def decision_index(*, appraisal: bytes, release: Sequence[bytes], evidence: bytes = b"") -> bytes:
    """The document that names a decision's inputs by digest; its own digest stands in the audit record.

    ``{"appraisal": DIGEST | null, "evidence": DIGEST | null, "release": [DIGEST, …]}``
    """
    index = {
        "appraisal": sha256(appraisal).hex() if appraisal else None,
        "evidence": evidence.hex() or None,
        "release": [sha256(document).hex() for document in release],
    }
    return json.dumps(index, separators=(",", ":"), sort_keys=True).encode("ascii")


def _put_all(connection: Connection, contents: Sequence[bytes], *, now: int) -> list[bytes]:
    digests = [sha256(content) for content in contents]
    rows = dict(zip(digests, contents, strict=True))
    # In one order everywhere, so that two replicas that store the same documents do not deadlock.
    insert_all_if_absent(
        connection,
        DOCUMENT,
        [{"digest": digest, "content": rows[digest], "created_at": now} for digest in sorted(rows)],
    )
    return digests
