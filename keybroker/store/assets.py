"""Assets: models and datasets, the constraints that travel with them and their wrapped data keys, one per version."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Final

from sqlalchemy import Connection, bindparam, select, tuple_, update

from keybroker.errors import AlreadyExistsError, NotFoundError
from keybroker.store.rows import (
    find_all,
    find_one,
    insert_if_absent,
    page_size,
    prefixed,
    references,
    values,
    without_prefix,
)
from keybroker.store.schema import ASSET, ASSET_VERSION, AssetKind, AssetState
from keystead.binding import AssetRef

_NAMED: Final = select(ASSET).where(ASSET.c.asset.in_(bindparam("names", expanding=True))).order_by(ASSET.c.asset)
_NAMED_LOCKED: Final = _NAMED.with_for_update()
_VERSION: Final = select(ASSET_VERSION).where(
    ASSET_VERSION.c.asset == bindparam("asset"), ASSET_VERSION.c.version == bindparam("version")
)
_VERSIONS_NAMED: Final = select(ASSET_VERSION).where(
    tuple_(ASSET_VERSION.c.asset, ASSET_VERSION.c.version).in_(bindparam("refs", expanding=True))
)
_WITH_VERSIONS: Final = (
    select(ASSET, *prefixed(ASSET_VERSION, "version", skip=["asset"]))
    .join(ASSET_VERSION, ASSET_VERSION.c.asset == ASSET.c.asset)
    .where(tuple_(ASSET_VERSION.c.asset, ASSET_VERSION.c.version).in_(bindparam("refs", expanding=True)))
    .order_by(ASSET.c.asset, ASSET_VERSION.c.version)
)
# Both tables: PostgreSQL reads anew, after it has waited, only the rows that the statement locks.
_WITH_VERSIONS_SHARED: Final = _WITH_VERSIONS.with_for_update(read=True, of=(ASSET, ASSET_VERSION))
_WITH_VERSIONS_LOCKED: Final = _WITH_VERSIONS.with_for_update(of=(ASSET, ASSET_VERSION))


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetRow:
    """One asset and its constraints.

    Attributes:
        asset: ``tenant/name``.
        tenant: whose it is.
        kind: what it is.
        state: whether its keys may be released.
        created_at: when it was registered.
        constraints: what must hold for every version, in canonical JSON (`keybroker.constraints`).
    """

    asset: str
    tenant: str
    kind: AssetKind
    state: AssetState
    created_at: int
    constraints: str


_ASSET_FIELDS: Final = tuple(each.name for each in fields(AssetRow))


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetVersionRow:
    """One sealed version of an asset.

    Attributes:
        asset: ``tenant/name``.
        version: from 1 upwards.
        key_id: the data key's id, as in the sealed manifest.
        wrapped_key: the data key under the tenant's key (`keybroker.keys.hierarchy`).
        manifest_digest: SHA-256 of the sealed manifest's canonical bytes.
        manifest: the manifest itself, in canonical JSON, where its owner left it.
        state: whether this version's key may be released.
        created_at: when it was added.
        constraints: what must hold for this version, in canonical JSON: the asset's, joined with those of its origins.
    """

    asset: str
    version: int
    key_id: str
    wrapped_key: bytes
    manifest_digest: bytes
    manifest: str | None
    state: AssetState
    created_at: int
    constraints: str

    @property
    def ref(self) -> AssetRef:
        """The version as it stands in grants."""
        return AssetRef(self.asset, self.version)


def insert(connection: Connection, row: AssetRow) -> None:
    """Register an asset.

    Raises:
        AlreadyExistsError: the name is taken.
    """
    if not insert_if_absent(connection, ASSET, values(row)):
        raise AlreadyExistsError("asset", row.asset)


def get(connection: Connection, asset: str, *, lock: bool = False) -> AssetRow:
    """Read an asset; with `lock`, no other transaction changes it or locks it before this one ends.

    Raises:
        NotFoundError: there is none.
    """
    statement = select(ASSET).where(ASSET.c.asset == asset)
    row = find_one(connection, statement.with_for_update() if lock else statement, AssetRow)
    if row is None:
        raise NotFoundError("asset", asset)
    return row


def lock_all(connection: Connection, names: Iterable[str]) -> dict[str, AssetRow]:
    """Those of `names` that exist, by name, locked in that order.

    Until this transaction ends no other one changes them or locks them, so no lease for a version of theirs commits.
    """
    return {row.asset: row for row in find_all(connection, _NAMED_LOCKED, AssetRow, {"names": sorted(set(names))})}


def find_all_named(connection: Connection, names: Iterable[str]) -> dict[str, AssetRow]:
    """Those of `names` that exist, by name."""
    return {row.asset: row for row in find_all(connection, _NAMED, AssetRow, {"names": sorted(set(names))})}


def page(connection: Connection, *, tenant: str, after: str = "", limit: int = 100) -> list[AssetRow]:
    """Up to `limit` assets of `tenant` by name, those whose name follows `after`."""
    statement = select(ASSET).where(ASSET.c.tenant == tenant, ASSET.c.asset > after)
    return find_all(connection, statement.order_by(ASSET.c.asset).limit(page_size(limit)), AssetRow)


def set_state(connection: Connection, asset: str, state: AssetState) -> AssetRow:
    """Change whether an asset's keys may be released; returns the asset as it is now.

    Raises:
        NotFoundError: there is none.
    """
    connection.execute(update(ASSET).where(ASSET.c.asset == asset).values(state=state))
    return get(connection, asset)


def insert_version(connection: Connection, row: AssetVersionRow) -> None:
    """Add a version. That versions follow one another without a gap is for the caller to see to, under the lock.

    Raises:
        AlreadyExistsError: the version exists.
        NotFoundError: there is no such asset.
    """
    with references("asset", row.asset):
        inserted = insert_if_absent(connection, ASSET_VERSION, values(row))
    if not inserted:
        raise AlreadyExistsError("asset version", str(row.ref), remedy="add the next version")


def get_version(connection: Connection, ref: AssetRef) -> AssetVersionRow:
    """Read a version.

    Raises:
        NotFoundError: there is none.
    """
    row = find_one(connection, _VERSION, AssetVersionRow, {"asset": ref.asset, "version": ref.version})
    if row is None:
        raise NotFoundError("asset version", str(ref))
    return row


def find_versions(connection: Connection, refs: Iterable[AssetRef]) -> dict[AssetRef, AssetVersionRow]:
    """Those of `refs` that exist."""
    wanted = sorted({(ref.asset, ref.version) for ref in refs})
    return {row.ref: row for row in find_all(connection, _VERSIONS_NAMED, AssetVersionRow, {"refs": wanted})}


def find_with_versions(
    connection: Connection, refs: Iterable[AssetRef], *, share: bool = False, lock: bool = False
) -> dict[AssetRef, tuple[AssetRow, AssetVersionRow]]:
    """Those of `refs` that exist, each with its asset.

    With `share`, no other transaction changes one of these assets before this one ends; with `lock`, none locks one
    either, so that what is counted for each asset over all jobs can be counted exactly.
    """
    statement = _WITH_VERSIONS_LOCKED if lock else _WITH_VERSIONS_SHARED if share else _WITH_VERSIONS
    wanted = {"refs": sorted({(ref.asset, ref.version) for ref in refs})}
    found = {}
    for row in connection.execute(statement, wanted).mappings():
        version = AssetVersionRow(asset=row["asset"], **without_prefix(row, "version"))
        found[version.ref] = AssetRow(**{name: row[name] for name in _ASSET_FIELDS}), version
    return found


def versions(connection: Connection, asset: str) -> list[AssetVersionRow]:
    """Every version of an asset, oldest first."""
    statement = select(ASSET_VERSION).where(ASSET_VERSION.c.asset == asset).order_by(ASSET_VERSION.c.version)
    return find_all(connection, statement, AssetVersionRow)


def set_constraints(connection: Connection, asset: str, constraints: str) -> None:
    """Change what must hold for every version that is added from now on.

    Raises:
        NotFoundError: there is no such asset.
    """
    changed = connection.execute(update(ASSET).where(ASSET.c.asset == asset).values(constraints=constraints))
    if changed.rowcount != 1:
        raise NotFoundError("asset", asset)


def set_version_constraints(connection: Connection, ref: AssetRef, constraints: str) -> None:
    """Change what must hold for one version. That nothing becomes freer unnoticed is for the caller to see to.

    Raises:
        NotFoundError: there is none.
    """
    matches = (ASSET_VERSION.c.asset == ref.asset) & (ASSET_VERSION.c.version == ref.version)
    if connection.execute(update(ASSET_VERSION).where(matches).values(constraints=constraints)).rowcount != 1:
        raise NotFoundError("asset version", str(ref))


def set_version_state(connection: Connection, ref: AssetRef, state: AssetState) -> AssetVersionRow:
    """Change whether one version's key may be released; returns the version as it is now.

    Raises:
        NotFoundError: there is none.
    """
    matches = (ASSET_VERSION.c.asset == ref.asset) & (ASSET_VERSION.c.version == ref.version)
    connection.execute(update(ASSET_VERSION).where(matches).values(state=state))
    return get_version(connection, ref)
