"""Documents by digest: decision inputs and what they refer to, each stored once."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection, select

from keybroker.errors import NotFoundError
from keybroker.store.rows import insert_if_absent
from keybroker.store.schema import DOCUMENT
from keystead.binding import sha256


def put(connection: Connection, content: bytes, *, now: int) -> bytes:
    """Store `content` unless it is there; returns its SHA-256 digest."""
    digest = sha256(content)
    insert_if_absent(connection, DOCUMENT, {"digest": digest, "content": content, "created_at": now})
    return digest


def get(connection: Connection, digest: bytes) -> bytes:
    """The document whose SHA-256 digest is `digest`.

    Raises:
        NotFoundError: there is none.
    """
    content = connection.execute(select(DOCUMENT.c.content).where(DOCUMENT.c.digest == digest)).scalar_one_or_none()
    if content is None:
        raise NotFoundError("document", digest.hex())
    return bytes(content)


def put_decision(connection: Connection, *, appraisal: bytes, release: Sequence[bytes], now: int) -> bytes:
    """Store the inputs of one decision: ``{"appraisal": DIGEST | null, "release": [DIGEST, …]}``, each input once.

    Args:
        connection: of the transaction that records the decision.
        appraisal: the appraisal policy's canonical input; empty where there was none.
        release: the release policy's, one for each asset.
        now: integer seconds since the Unix epoch.

    Returns:
        The digest of the document that names them.
    """
    for document in (appraisal, *release):
        if document:
            put(connection, document, now=now)
    return put(connection, decision_index(appraisal=appraisal, release=release), now=now)


def decision_index(*, appraisal: bytes, release: Sequence[bytes]) -> bytes:
    """The document that names a decision's inputs by digest; its own digest stands in the audit record."""
    index = {
        "appraisal": sha256(appraisal).hex() if appraisal else None,
        "release": [sha256(document).hex() for document in release],
    }
    return json.dumps(index, separators=(",", ":"), sort_keys=True).encode("ascii")
