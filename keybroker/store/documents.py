"""Documents by digest: decision inputs and what they refer to, each stored once."""

from __future__ import annotations

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
