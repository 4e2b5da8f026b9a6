"""Requests that were answered, so that a repeated one gets the same answer (AIP-155)."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from keybroker.errors import RequestAnsweredError, RequestMismatchError
from keybroker.store.rows import insert_if_absent
from keybroker.store.schema import IDEMPOTENCY


def find(
    connection: Connection, *, principal: str, request_id: str, method: str, request_digest: bytes
) -> bytes | None:
    """The answer that `principal` got to this request before, or None.

    Raises:
        RequestMismatchError: the id was used for another method or another request.
    """
    found = connection.execute(
        select(IDEMPOTENCY.c.method, IDEMPOTENCY.c.request_digest, IDEMPOTENCY.c.response).where(
            IDEMPOTENCY.c.principal == principal, IDEMPOTENCY.c.request_id == request_id
        )
    ).one_or_none()
    if found is None:
        return None
    if found.method != method or found.request_digest != request_digest:
        raise RequestMismatchError(
            f"request id {request_id!r} was used for another request ({found.method}): draw a new id for each request"
        )
    return bytes(found.response)


def record(
    connection: Connection,
    *,
    principal: str,
    request_id: str,
    method: str,
    request_digest: bytes,
    response: bytes,
    now: int,
) -> None:
    """Keep the answer, in the transaction that does the work.

    Raises:
        RequestAnsweredError: another replica was first; raised out of the unit, it undoes this one's work, and its
            `response` is what to answer.
        RequestMismatchError: the id was used for another method or another request.
    """
    row = {
        "principal": principal,
        "request_id": request_id,
        "method": method,
        "request_digest": request_digest,
        "response": response,
        "created_at": now,
    }
    if insert_if_absent(connection, IDEMPOTENCY, row):
        return
    found = find(connection, principal=principal, request_id=request_id, method=method, request_digest=request_digest)
    if found is None:
        raise RequestMismatchError(f"request id {request_id!r} was used and forgotten meanwhile: draw a new id")
    raise RequestAnsweredError(request_id, response=found)


def forget_before(connection: Connection, time: int) -> int:
    """Remove answers given before `time`; returns how many."""
    return connection.execute(delete(IDEMPOTENCY).where(IDEMPOTENCY.c.created_at < time)).rowcount
