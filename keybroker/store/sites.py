"""Sites: where hardware stands, and under whose law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, select, update

from keybroker.errors import AlreadyExistsError, NotFoundError
from keybroker.store.rows import find_all, find_one, insert_if_absent, page_size, values
from keybroker.store.schema import SITE, SITE_RECORD, SiteState

_BY_ID: Final = select(SITE).where(SITE.c.site_id == bindparam("site_id"))
_RECORD: Final = select(SITE_RECORD).where(
    SITE_RECORD.c.site_id == bindparam("site_id"), SITE_RECORD.c.serial == bindparam("serial")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRow:
    """One site.

    Attributes:
        site_id: its name.
        jurisdiction: ISO 3166-1 alpha-2 code of the country, or an ISO 3166-2 code.
        facility: the building's name.
        operator: who runs it.
        state: whether its nodes may receive keys.
        valid_until: when the record ends (exclusive).
        created_at: when it was enrolled.
        serial: of the newest record; 0 where there is none: nobody has signed for the site.
        valid_from: when that record begins.
        exposures: jurisdictions of the operator and of the entities that control it, in sorted order.
        certifications: what the site is certified for, in sorted order.
        network_zone: the network that it is in; may be empty.
    """

    site_id: str
    jurisdiction: str
    facility: str
    operator: str
    state: SiteState
    valid_until: int
    created_at: int
    serial: int = 0
    valid_from: int = 0
    exposures: tuple[str, ...] = ()
    certifications: tuple[str, ...] = ()
    network_zone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRecordRow:
    """One signed record of a site, as it was enrolled.

    Attributes:
        site_id: whose.
        serial: 1 or more.
        digest: SHA-256 of `statement`.
        statement: the canonical statement (`keybroker.statements`).
        signatures: the JWS over it.
        signers: the authorities that made them, in sorted order.
        created_at: when the broker took it.
    """

    site_id: str
    serial: int
    digest: bytes
    statement: bytes
    signatures: tuple[str, ...]
    signers: tuple[str, ...]
    created_at: int


def insert(connection: Connection, row: SiteRow) -> None:
    """Enrol a site.

    Raises:
        AlreadyExistsError: the name is taken.
    """
    if not insert_if_absent(connection, SITE, values(row)):
        raise AlreadyExistsError("site", row.site_id)


def get(connection: Connection, site_id: str) -> SiteRow:
    """Read a site.

    Raises:
        NotFoundError: there is none.
    """
    row = find_one(connection, _BY_ID, SiteRow, {"site_id": site_id})
    if row is None:
        raise NotFoundError("site", site_id)
    return row


def page(connection: Connection, *, after: str = "", limit: int = 100) -> list[SiteRow]:
    """Up to `limit` sites by name, those whose name follows `after`."""
    statement = select(SITE).where(SITE.c.site_id > after).order_by(SITE.c.site_id).limit(page_size(limit))
    return find_all(connection, statement, SiteRow)


def lock(connection: Connection, site_id: str) -> SiteRow:
    """Read a site that no other transaction changes before this one ends.

    Raises:
        NotFoundError: there is none.
    """
    row = find_one(connection, _BY_ID.with_for_update(), SiteRow, {"site_id": site_id})
    if row is None:
        raise NotFoundError("site", site_id)
    return row


def replace(connection: Connection, row: SiteRow) -> None:
    """Write what a newer record says of a site that is there.

    Raises:
        NotFoundError: there is none.
    """
    if connection.execute(update(SITE).where(SITE.c.site_id == row.site_id).values(**values(row))).rowcount != 1:
        raise NotFoundError("site", row.site_id)


def set_state(connection: Connection, site_id: str, state: SiteState) -> SiteRow:
    """Change whether a site's nodes may receive keys; returns the site as it is now.

    Raises:
        NotFoundError: there is none.
    """
    connection.execute(update(SITE).where(SITE.c.site_id == site_id).values(state=state))
    return get(connection, site_id)


def insert_record(connection: Connection, row: SiteRecordRow) -> None:
    """Keep a signed record.

    Raises:
        AlreadyExistsError: the site has a record with this serial.
    """
    if not insert_if_absent(connection, SITE_RECORD, values(row)):
        raise AlreadyExistsError("site record", f"{row.site_id} {row.serial}", remedy="give the record a higher serial")


def find_record(connection: Connection, site_id: str, serial: int) -> SiteRecordRow | None:
    """A site's signed record, or None."""
    return find_one(connection, _RECORD, SiteRecordRow, {"site_id": site_id, "serial": serial})
