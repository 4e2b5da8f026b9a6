"""Wrapped keys of tenants and of the broker itself."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from keybroker.errors import NotFoundError
from keybroker.store.rows import find_one, insert_if_absent, values
from keybroker.store.schema import BROKER_KEY, TENANT_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantKeyRow:
    """A tenant's key, which wraps its data keys.

    Attributes:
        tenant: whose it is.
        generation: 1 for the first; a rotation adds the next.
        wrapped: the key under the root.
        created_at: when it was drawn.
    """

    tenant: str
    generation: int
    wrapped: bytes
    created_at: int


def insert_tenant_key(connection: Connection, row: TenantKeyRow) -> TenantKeyRow:
    """Store a tenant's key unless that generation exists; returns the one that stands."""
    if insert_if_absent(connection, TENANT_KEY, values(row)):
        return row
    return get_tenant_key(connection, row.tenant, row.generation)


def get_tenant_key(connection: Connection, tenant: str, generation: int) -> TenantKeyRow:
    """One generation of a tenant's key.

    Raises:
        NotFoundError: there is none.
    """
    statement = select(TENANT_KEY).where(TENANT_KEY.c.tenant == tenant, TENANT_KEY.c.generation == generation)
    row = find_one(connection, statement, TenantKeyRow)
    if row is None:
        raise NotFoundError("tenant key", f"{tenant}/{generation}")
    return row


def newest_tenant_key(connection: Connection, tenant: str) -> TenantKeyRow | None:
    """The newest generation of a tenant's key, or None where it has none yet."""
    newest = select(TENANT_KEY).where(TENANT_KEY.c.tenant == tenant).order_by(TENANT_KEY.c.generation.desc())
    return find_one(connection, newest.limit(1), TenantKeyRow)


def insert_broker_key(connection: Connection, *, name: str, wrapped: bytes, now: int) -> bytes:
    """Store a key of the broker unless `name` exists; returns the one that stands."""
    if insert_if_absent(connection, BROKER_KEY, {"name": name, "wrapped": wrapped, "created_at": now}):
        return wrapped
    return bytes(connection.execute(select(BROKER_KEY.c.wrapped).where(BROKER_KEY.c.name == name)).scalar_one())


def find_broker_key(connection: Connection, name: str) -> bytes | None:
    """A key of the broker, or None."""
    return connection.execute(select(BROKER_KEY.c.wrapped).where(BROKER_KEY.c.name == name)).scalar_one_or_none()
