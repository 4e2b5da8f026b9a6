"""Monotone floors: the newest collateral and reference values that were ever used, by source.

A clock can be set back and an old file copied over a new one. What this store has used once is never followed by
something older, on any replica, whatever the clock says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, select, update

from keybroker.errors import CollateralRolledBackError
from keybroker.store.rows import insert_if_absent, page_size
from keybroker.store.schema import COLLATERAL_FLOOR

MAX_NUMBER: Final = (1 << 63) - 1
MAX_SOURCE: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """One source's number, as it is used now.

    Attributes:
        source: whose number it is; the same text at every start.
        name: the file, for errors.
        number: CRL number or serial; None where the file states none.
        digest: SHA-256 of the file.
    """

    source: str
    name: str
    number: int | None
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFloor:
    """One row: the newest number of `source` that was used, of which file, and since when."""

    source: str
    number: int
    digest: bytes
    updated_at: int


def raise_floors(connection: Connection, floors: Sequence[Floor], *, now: int) -> None:
    """Check every floor against the stored one, and raise those that are newer; all or none.

    Args:
        connection: in a transaction, which the caller commits.
        floors: what is about to be used.
        now: seconds since the epoch.

    Raises:
        CollateralRolledBackError: a number below the stored one, none at all where one was used before, or the stored
            number with other content.
    """
    # One order for all replicas, so that two that start together cannot wait for each other.
    for floor in sorted(floors, key=lambda each: each.source):
        if floor.number is not None:
            row = {"source": floor.source, "number": floor.number, "digest": floor.digest, "updated_at": now}
            if insert_if_absent(connection, COLLATERAL_FLOOR, row):
                continue
        stored = _locked(connection, floor.source)
        if stored is None:
            continue
        _check(floor, stored)
        if floor.number is not None and floor.number > stored.number:
            connection.execute(
                update(COLLATERAL_FLOOR)
                .where(COLLATERAL_FLOOR.c.source == floor.source)
                .values(number=floor.number, digest=floor.digest, updated_at=now)
            )


def _locked(connection: Connection, source: str) -> StoredFloor | None:
    """The row, which no other transaction changes before this one ends (SQLite has one writer at a time anyway)."""
    statement = select(COLLATERAL_FLOOR).where(COLLATERAL_FLOOR.c.source == source).with_for_update()
    found = connection.execute(statement).mappings().one_or_none()
    return None if found is None else StoredFloor(**found)


def _check(floor: Floor, stored: StoredFloor) -> None:
    where = f"{floor.name} ({floor.source})"
    mend = (
        f"Install the newest file of this source. If number {stored.number} itself was a mistake, forget it: "
        f"keystead reference floors DIR --forget {floor.source!r}"
    )
    if floor.number is None:
        raise CollateralRolledBackError(
            f"{where}: states no number, and number {stored.number} of this source was used before. {mend}"
        )
    if floor.number < stored.number:
        raise CollateralRolledBackError(
            f"{where}: number {floor.number} is older than number {stored.number}, which was used before. {mend}"
        )
    if floor.number == stored.number and floor.digest != stored.digest:
        raise CollateralRolledBackError(
            f"{where}: number {floor.number} has other content (SHA-256 {floor.digest.hex()}) than when it was used "
            f"before ({bytes(stored.digest).hex()}): a change needs a higher number. {mend}"
        )


def stored_floors(connection: Connection, *, limit: int = 1000) -> list[StoredFloor]:
    """Every stored floor, by source."""
    statement = select(COLLATERAL_FLOOR).order_by(COLLATERAL_FLOOR.c.source).limit(page_size(limit))
    return [StoredFloor(**found) for found in connection.execute(statement).mappings()]


def forget(connection: Connection, source: str) -> bool:
    """Remove the floor of `source`, on an operator's word alone; returns whether there was one."""
    return connection.execute(delete(COLLATERAL_FLOOR).where(COLLATERAL_FLOOR.c.source == source)).rowcount == 1
