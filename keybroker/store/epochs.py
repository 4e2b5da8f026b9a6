"""Wrapped epoch keys, shared by every replica."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from keybroker.store.rows import insert_if_absent
from keybroker.store.schema import EPOCH_KEY


def insert_first(connection: Connection, *, epoch: int, wrapped: bytes, now: int) -> bytes:
    """Store the epoch's key unless another replica was first; returns the one that stands."""
    if insert_if_absent(connection, EPOCH_KEY, {"epoch": epoch, "wrapped": wrapped, "created_at": now}):
        return wrapped
    return bytes(connection.execute(select(EPOCH_KEY.c.wrapped).where(EPOCH_KEY.c.epoch == epoch)).scalar_one())


def find(connection: Connection, epoch: int) -> bytes | None:
    """The epoch's wrapped key, or None."""
    return connection.execute(select(EPOCH_KEY.c.wrapped).where(EPOCH_KEY.c.epoch == epoch)).scalar_one_or_none()


def delete_before(connection: Connection, epoch: int) -> int:
    """Remove the keys of epochs before `epoch`; returns how many."""
    return connection.execute(delete(EPOCH_KEY).where(EPOCH_KEY.c.epoch < epoch)).rowcount
