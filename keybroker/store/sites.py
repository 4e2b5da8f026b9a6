"""Sites: where hardware stands, and under whose law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, select, update

from keybroker.errors import AlreadyExistsError, NotFoundError
from keybroker.store.rows import find_all, find_one, insert_if_absent, page_size, values
from keybroker.store.schema import SITE, SiteState

_BY_ID: Final = select(SITE).where(SITE.c.site_id == bindparam("site_id"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRow:
    """One site.

    Attributes:
        site_id: its name.
        jurisdiction: ISO 3166-1 alpha-2 code of the country, or an ISO 3166-2 code.
        facility: the building's name.
        operator: who runs it.
        state: whether its nodes may receive keys.
        valid_until: when the enrolment ends (exclusive).
        created_at: when it was enrolled.
    """

    site_id: str
    jurisdiction: str
    facility: str
    operator: str
    state: SiteState
    valid_until: int
    created_at: int

    @property
    def exposures(self) -> tuple[str, ...]:
        """Jurisdictions of the operator and of the entities that control it; none are recorded yet."""
        return ()

    @property
    def certifications(self) -> tuple[str, ...]:
        """What the site is certified for; nothing is recorded yet."""
        return ()

    @property
    def network_zone(self) -> str:
        """The network that it is in; none is recorded yet."""
        return ""


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


def set_state(connection: Connection, site_id: str, state: SiteState) -> SiteRow:
    """Change whether a site's nodes may receive keys; returns the site as it is now.

    Raises:
        NotFoundError: there is none.
    """
    connection.execute(update(SITE).where(SITE.c.site_id == site_id).values(state=state))
    return get(connection, site_id)


def set_valid_until(connection: Connection, site_id: str, valid_until: int) -> SiteRow:
    """Change when a site's enrolment ends; returns the site as it is now.

    Raises:
        NotFoundError: there is none.
    """
    connection.execute(update(SITE).where(SITE.c.site_id == site_id).values(valid_until=valid_until))
    return get(connection, site_id)
