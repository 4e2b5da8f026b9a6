"""Lineage: which asset version was derived from which, followed both ways by recursive queries."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import CTE, ColumnElement, Connection, and_, or_, select, tuple_

from keybroker.errors import LineageTooLargeError
from keybroker.store.rows import insert_all_if_absent, values
from keybroker.store.schema import LINEAGE_EDGE
from keystead.binding import AssetRef

MAX_CLOSURE: Final = 10_000
"""Versions that one change may reach, and that one version may descend from."""

_E: Final = LINEAGE_EDGE.c
_CHILD: Final = (_E.child_asset, _E.child_version)
_PARENT: Final = (_E.parent_asset, _E.parent_version)


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeRow:
    """One step of lineage.

    Attributes:
        child_asset, child_version: what was derived.
        parent_asset, parent_version: from what.
        grant_id: the grant by which the job held the parent, or None where an owner declared the step.
        lease_id: the lease by which it did, or None.
        created_at: when the step was recorded.
    """

    child_asset: str
    child_version: int
    parent_asset: str
    parent_version: int
    grant_id: str | None
    lease_id: str | None
    created_at: int

    @property
    def child(self) -> AssetRef:
        """What was derived."""
        return AssetRef(self.child_asset, self.child_version)

    @property
    def parent(self) -> AssetRef:
        """From what."""
        return AssetRef(self.parent_asset, self.parent_version)


def insert(connection: Connection, rows: Iterable[EdgeRow]) -> None:
    """Add those steps that are not there yet."""
    insert_all_if_absent(connection, LINEAGE_EDGE, [values(row) for row in rows])


def parents(connection: Connection, ref: AssetRef) -> list[AssetRef]:
    """What a version was derived from directly, sorted."""
    statement = select(*_PARENT).where(_E.child_asset == ref.asset, _E.child_version == ref.version)
    return sorted(AssetRef(asset, version) for asset, version in connection.execute(statement))


def ancestors(connection: Connection, refs: Collection[AssetRef], *, limit: int = MAX_CLOSURE) -> set[AssetRef]:
    """Everything that `refs` were derived from, directly or not.

    Raises:
        LineageTooLargeError: more than `limit` versions.
    """
    return _closure(connection, refs, _CHILD, _PARENT, limit=limit)


def descendants(connection: Connection, refs: Collection[AssetRef], *, limit: int = MAX_CLOSURE) -> set[AssetRef]:
    """Everything that was derived from `refs`, directly or not.

    Raises:
        LineageTooLargeError: more than `limit` versions.
    """
    return _closure(connection, refs, _PARENT, _CHILD, limit=limit)


def edges_up(connection: Connection, refs: Collection[AssetRef], *, limit: int) -> list[EdgeRow]:
    """Up to `limit` of the steps by which `refs` were derived."""
    return _edges(connection, refs, _CHILD, _PARENT, limit=limit)


def edges_down(connection: Connection, refs: Collection[AssetRef], *, limit: int) -> list[EdgeRow]:
    """Up to `limit` of the steps by which other versions were derived from `refs`."""
    return _edges(connection, refs, _PARENT, _CHILD, limit=limit)


def _edges(
    connection: Connection,
    refs: Collection[AssetRef],
    here: tuple[Any, Any],
    there: tuple[Any, Any],
    *,
    limit: int,
) -> list[EdgeRow]:
    if not refs:
        return []
    reached = _reached(refs, here, there)
    # A step belongs to the answer if it leaves one of the versions begun at, or one that was reached.
    onwards = tuple_(*here).in_(select(reached.c.asset, reached.c.version))
    statement = (
        select(LINEAGE_EDGE).where(or_(_among(here, refs), onwards)).order_by(*LINEAGE_EDGE.primary_key).limit(limit)
    )
    return [EdgeRow(**row) for row in connection.execute(statement).mappings()]


def _closure(
    connection: Connection,
    refs: Collection[AssetRef],
    here: tuple[Any, Any],
    there: tuple[Any, Any],
    *,
    limit: int,
) -> set[AssetRef]:
    if not refs:
        return set()
    reached = _reached(refs, here, there)
    found = connection.execute(select(reached.c.asset, reached.c.version).limit(limit + 1)).all()
    if len(found) > limit:
        raise LineageTooLargeError(f"more than {limit} asset versions are derived from one another here")
    return {AssetRef(asset, version) for asset, version in found}


def _reached(refs: Collection[AssetRef], here: tuple[Any, Any], there: tuple[Any, Any]) -> CTE:
    """The versions that steps lead to from `refs`, each once: UNION drops what is there already, so cycles end it."""
    first = select(there[0].label("asset"), there[1].label("version")).where(_among(here, refs))
    reached = first.cte("reached", recursive=True)
    following = select(*there).join(reached, and_(here[0] == reached.c.asset, here[1] == reached.c.version))
    return reached.union(following)


def _among(columns: tuple[Any, Any], refs: Collection[AssetRef]) -> ColumnElement[bool]:
    return tuple_(*columns).in_(sorted((ref.asset, ref.version) for ref in refs))
