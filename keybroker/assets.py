"""Models and datasets: their constraints, their versions, their data keys."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Final

from sqlalchemy import Connection

from audit.log import append
from audit.records import MAX_TEXT, Actor, Kind, Record, Result
from keybroker import requests
from keybroker.broker import Broker, actor
from keybroker.constraints import ANYWHERE, BOTTOM, Areas, Constraints, Jurisdictions, conflicts, join, parsed
from keybroker.errors import InvalidRequestError, NotFoundError, RoleError, StateConflictError
from keybroker.leases import revoke_all
from keybroker.principals import Principal
from keybroker.store import assets, documents, leases
from keybroker.store.assets import AssetRow, AssetVersionRow
from keybroker.store.leases import LeaseRow
from keybroker.store.schema import AssetKind, AssetState
from keystead.binding import AssetRef, BindingError, UnwrapError, owner_key_info

DATA_KEY_SIZE: Final = 32
_KEY_ID: Final = re.compile(r"[0-9a-z][0-9a-z._-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class AssetView:
    """An asset with its versions."""

    row: AssetRow
    versions: tuple[AssetVersionRow, ...]


def register(
    connection: Connection,
    *,
    caller: Principal,
    asset: str,
    kind: AssetKind,
    constraints: Constraints,
    jurisdictions: Jurisdictions,
    now: int,
) -> AssetView:
    """Register an asset and the constraints that travel with it; a unit of work.

    `jurisdictions` are the areas that the release policy knows (`keybroker.policies`).

    Raises:
        RoleError: the asset's tenant is not the caller's.
        InvalidRequestError: a field is missing, malformed or contradicts another.
        AlreadyExistsError: the name is taken.
    """
    name = own(caller, requests.asset_name(asset))
    check_constraints(constraints, jurisdictions, now=now)
    row = AssetRow(
        asset=name,
        tenant=caller.require_tenant(),
        kind=kind,
        state=AssetState.ACTIVE,
        created_at=now,
        constraints=constraints.to_json(),
    )
    insert_asset(connection, row, who=actor(caller), now=now)
    return AssetView(row, ())


def insert_asset(connection: Connection, row: AssetRow, *, who: Actor, now: int) -> None:
    """Insert an asset, checked before, and record it; part of a unit of work.

    Raises:
        AlreadyExistsError: the name is taken.
    """
    constraints = parsed(row.constraints)
    assets.insert(connection, row)
    append(
        connection,
        Record.build(
            kind=Kind.ASSET_REGISTERED,
            time=now,
            actor=who,
            tenant=row.tenant,
            result=Result.RECORDED,
            detail={
                "asset": row.asset,
                "asset_kind": row.kind.value,
                "classification": constraints.classification,
                "purposes": tuple(sorted(constraints.purposes or ())),
                "residency_allowed": tuple(_clipped(" or ".join(clause)) for clause in constraints.residency.clauses()),
                "residency_forbidden": tuple(sorted(constraints.residency.forbidden)),
                # The rest, word for word: the document of this digest.
                "constraints_digest": documents.put(connection, row.constraints.encode("utf-8"), now=now).hex(),
            },
        ),
    )


def _clipped(text: str) -> str:
    """`text` as one line of a record; the constraints' document has the whole of it."""
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 4]} ..."


def check_constraints(constraints: Constraints, jurisdictions: Jurisdictions, *, now: int) -> None:
    """Check that constraints say enough to register an asset with, know their areas, and can be satisfied at all.

    Raises:
        InvalidRequestError: they do not; it names the field.
    """
    check_sizes(constraints)
    if not constraints.purposes:
        raise InvalidRequestError("purposes", "at least one is needed: without a purpose nothing may be done")
    if not constraints.residency.allowed:
        raise InvalidRequestError(
            "residency.allowed", "empty would allow no place at all; name jurisdictions or groups, or * for anywhere"
        )
    check_areas(constraints, jurisdictions)
    if constraints.retain_until is not None and constraints.retain_until <= now:
        raise InvalidRequestError("retain_until", f"{constraints.retain_until} is not after now, {now}")
    for conflict in conflicts(constraints, jurisdictions):
        raise InvalidRequestError(conflict.field, conflict.why)


def check_areas(constraints: Constraints, jurisdictions: Jurisdictions) -> None:
    """Check that every area is known, and that none is both allowed and forbidden.

    Raises:
        InvalidRequestError: one is not, or is; it names the field.
    """
    for name, value in (("residency", constraints.residency), ("exposure", constraints.exposure)):
        for kind, areas in (("allowed", frozenset().union(*value.allowed)), ("forbidden", value.forbidden)):
            unknown = sorted(area for area in areas if not jurisdictions.known(area))
            if unknown:
                raise InvalidRequestError(
                    f"{name}.{kind}",
                    f"{unknown[0]!r} is no ISO 3166 code, no group that the release policy knows, and not *",
                )
        both = sorted(
            area
            for area in frozenset().union(*value.allowed)
            if area in value.forbidden or any(_inside(jurisdictions, area, other) for other in value.forbidden)
        )
        if both:
            raise InvalidRequestError(f"{name}.forbidden", f"{', '.join(both)}: both allowed and forbidden")


def check_sizes(constraints: Constraints) -> None:
    """Check that no set has more values than one request may name.

    Raises:
        InvalidRequestError: one has; it names the field.
    """
    for item in fields(constraints):
        value = getattr(constraints, item.name)
        sets: dict[str, Collection[object]] = {item.name: value} if isinstance(value, frozenset) else {}
        if isinstance(value, Areas):
            sets = {f"{item.name}.allowed": value.allowed, f"{item.name}.forbidden": value.forbidden}
            sets |= {f"{item.name}.allowed[{number}]": clause for number, clause in enumerate(value.clauses())}
        for name, members in sets.items():
            if len(members) > requests.MAX_LIST:
                raise InvalidRequestError(name, f"{len(members)} values, at most {requests.MAX_LIST} are allowed")


def _inside(jurisdictions: Jurisdictions, area: str, other: str) -> bool:
    """Whether all of `area` lies in `other`."""
    members = jurisdictions.groups.get(area)
    if members is not None:
        return bool(members) and all(jurisdictions.within(country, other) for country in members)
    return area != ANYWHERE and jurisdictions.within(area, other)


def check_key_id(key_id: str) -> str:
    """A data key's id, checked.

    Raises:
        InvalidRequestError: it is none.
    """
    if not _KEY_ID.match(key_id):
        raise InvalidRequestError("key_id", "not 1 to 64 of lower-case letters, digits and ._-")
    return key_id


def open_owner_key(broker: Broker, *, ref: AssetRef, key_id: str, wrapped: bytes) -> bytes:
    """The data key that an owner wrapped to the broker.

    Raises:
        InvalidRequestError: it was wrapped to another key or for another version, or is not 32 bytes long.
    """
    check_key_id(key_id)
    try:
        data_key = broker.wrapping_key.open(wrapped, info=owner_key_info(broker=broker.name, ref=ref, key_id=key_id))
    except (UnwrapError, BindingError):
        raise InvalidRequestError(
            "wrapped_key", "does not open: wrap it to GetWrappingKey's key, for this broker, asset, version and key id"
        ) from None
    if len(data_key) != DATA_KEY_SIZE:
        raise InvalidRequestError("wrapped_key", f"holds {len(data_key)} bytes, a data key has {DATA_KEY_SIZE}")
    return data_key


def add_version(
    connection: Connection,
    *,
    broker: Broker,
    caller: Principal,
    ref: AssetRef,
    key_id: str,
    data_key: bytes,
    manifest_digest: bytes,
    now: int,
    inherited: Constraints = BOTTOM,
    parents: Sequence[AssetRef] = (),
    description_digest: bytes = b"",
) -> AssetVersionRow:
    """Add the next version of an asset with its data key; a unit of work.

    `inherited` is the join of the constraints of `parents`, from which the version was derived
    (`keybroker.lineage.add_version`). `description_digest` is cited in the record, where there is one.

    Raises:
        NotFoundError: this tenant has no such asset.
        InvalidRequestError: not the next version, or a malformed field.
        StateConflictError: the asset is revoked.
    """
    described = requests.digest(description_digest, "description_digest") if description_digest else b""
    asset = get_own(connection, caller, ref.asset, lock=True)
    row = insert_version(
        connection,
        asset,
        broker=broker,
        ref=ref,
        key_id=key_id,
        data_key=data_key,
        manifest_digest=manifest_digest,
        inherited=inherited,
        now=now,
    )
    append(
        connection,
        Record.build(
            kind=Kind.ASSET_VERSION_ADDED,
            time=now,
            actor=actor(caller),
            tenant=asset.tenant,
            assets=(str(ref), *map(str, parents)),
            result=Result.RECORDED,
            detail={
                "key_id": key_id,
                "manifest_digest": manifest_digest.hex(),
                # The record's other assets are what it was derived from.
                **({"version": str(ref)} if parents else {}),
                **({"description_digest": described.hex()} if described else {}),
            },
        ),
    )
    return row


def insert_version(
    connection: Connection,
    asset: AssetRow,
    *,
    broker: Broker,
    ref: AssetRef,
    key_id: str,
    data_key: bytes,
    manifest_digest: bytes,
    inherited: Constraints,
    now: int,
) -> AssetVersionRow:
    """Add the next version of `asset`, which is locked; part of a unit of work, which records it.

    Raises:
        InvalidRequestError: not the next version, a malformed field, or constraints that are too large together.
        StateConflictError: the asset is revoked.
    """
    check_key_id(key_id)
    if asset.state is not AssetState.ACTIVE:
        raise StateConflictError("asset", asset.asset, state=asset.state, expected=AssetState.ACTIVE)
    following = len(assets.versions(connection, asset.asset)) + 1
    if ref.version != following:
        raise InvalidRequestError("ref.version", f"{ref.version}: the next version of {asset.asset} is {following}")
    row = AssetVersionRow(
        asset=asset.asset,
        version=ref.version,
        key_id=key_id,
        wrapped_key=broker.hierarchy.wrap_data_key(
            connection, data_key, tenant=asset.tenant, ref=ref, key_id=key_id, now=now
        ),
        manifest_digest=requests.digest(manifest_digest, "manifest_digest"),
        manifest=None,
        state=AssetState.ACTIVE,
        created_at=now,
        constraints=join(parsed(asset.constraints), inherited).to_json(),
    )
    parsed(row.constraints)  # what cannot be read back, being too large, must not be written
    assets.insert_version(connection, row)
    return row


def get(connection: Connection, *, caller: Principal, asset: str) -> AssetView:
    """Read an asset with its versions.

    Raises:
        NotFoundError: this tenant has no such asset.
    """
    row = get_own(connection, caller, asset, lock=False)
    return AssetView(row, tuple(assets.versions(connection, row.asset)))


def page(connection: Connection, *, caller: Principal, after: str, limit: int) -> list[AssetRow]:
    """The tenant's assets by name, from `after` on."""
    return assets.page(connection, tenant=caller.require_tenant(), after=after, limit=limit)


def revoke(connection: Connection, *, caller: Principal, asset: str, now: int) -> AssetView:
    """Stop every further release of an asset's keys and revoke its live leases; a unit of work.

    Raises:
        NotFoundError: this tenant has no such asset.
    """
    row = get_own(connection, caller, asset, lock=True)
    versions = tuple(assets.versions(connection, row.asset))
    if row.state is AssetState.REVOKED:
        return AssetView(row, versions)
    revoked = assets.set_state(connection, row.asset, AssetState.REVOKED)
    held = [lease for lease in leases.live_of_tenant(connection, row.tenant, now=now) if _covers(lease, row.asset)]
    revoke_all(connection, held, caller=caller, because="ASSET_REVOKED", now=now)
    append(
        connection,
        Record.build(
            kind=Kind.ASSET_REVOKED,
            time=now,
            actor=actor(caller),
            tenant=row.tenant,
            assets=tuple(str(version.ref) for version in versions),
            result=Result.RECORDED,
            detail={"asset": row.asset, "revoked_leases": len(held)},
        ),
    )
    return AssetView(revoked, versions)


def end_leases(
    connection: Connection, refs: Collection[AssetRef], *, caller: Principal, because: str, now: int
) -> None:
    """Revoke every live lease that covers one of `refs`, whose assets are locked; part of a unit of work."""
    wanted = set(map(str, refs))
    live = leases.live_covering(connection, {ref.asset for ref in refs}, now=now)
    revoke_all(
        connection, [lease for lease in live if wanted & set(lease.assets)], caller=caller, because=because, now=now
    )


def _covers(lease: LeaseRow, asset: str) -> bool:
    return any(AssetRef.parse(text).asset == asset for text in lease.assets)


def own(caller: Principal, asset: str) -> str:
    """The name `asset`, which must be of the caller's tenant.

    Raises:
        RoleError: it is another's.
    """
    tenant = caller.require_tenant()
    if asset.partition("/")[0] != tenant:
        raise RoleError(f"asset {asset!r}: this certificate acts for tenant {tenant!r} only")
    return asset


def get_own(connection: Connection, caller: Principal, asset: str, *, lock: bool) -> AssetRow:
    """An asset of the caller's tenant; `lock` as for the store's `get`.

    Raises:
        NotFoundError: this tenant has no such asset.
    """
    # Another tenant's asset answers as one that does not exist.
    if requests.asset_name(asset).partition("/")[0] != caller.require_tenant():
        raise NotFoundError("asset", asset)
    return assets.get(connection, asset, lock=lock)
