"""Models and datasets: their constraints, their versions, their data keys."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Final

from sqlalchemy import Connection

from audit.log import append
from audit.records import Kind, Record, Result
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
    name = _own(caller, requests.asset_name(asset))
    check_constraints(constraints, jurisdictions, now=now)
    text = constraints.to_json()
    row = AssetRow(
        asset=name,
        tenant=caller.require_tenant(),
        kind=kind,
        state=AssetState.ACTIVE,
        created_at=now,
        constraints=text,
    )
    assets.insert(connection, row)
    append(
        connection,
        Record.build(
            kind=Kind.ASSET_REGISTERED,
            time=now,
            actor=actor(caller),
            tenant=row.tenant,
            result=Result.RECORDED,
            detail={
                "asset": name,
                "asset_kind": kind.value,
                "classification": constraints.classification,
                "purposes": tuple(sorted(constraints.purposes or ())),
                "residency_allowed": tuple(" or ".join(clause) for clause in constraints.residency.clauses()),
                "residency_forbidden": tuple(sorted(constraints.residency.forbidden)),
                # The rest, word for word: the document of this digest.
                "constraints_digest": documents.put(connection, text.encode("utf-8"), now=now).hex(),
            },
        ),
    )
    return AssetView(row, ())


def check_constraints(constraints: Constraints, jurisdictions: Jurisdictions, *, now: int) -> None:
    """Check that constraints say enough to register an asset with, know their areas, and can be satisfied at all.

    Raises:
        InvalidRequestError: they do not; it names the field.
    """
    _check_sizes(constraints)
    if not constraints.purposes:
        raise InvalidRequestError("purposes", "at least one is needed: without a purpose nothing may be done")
    if not constraints.residency.allowed:
        raise InvalidRequestError(
            "residency.allowed", "empty would allow no place at all; name jurisdictions or groups, or * for anywhere"
        )
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
    if constraints.retain_until is not None and constraints.retain_until <= now:
        raise InvalidRequestError("retain_until", f"{constraints.retain_until} is not after now, {now}")
    for conflict in conflicts(constraints, jurisdictions):
        raise InvalidRequestError(conflict.field, conflict.why)


def _check_sizes(constraints: Constraints) -> None:
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


def open_owner_key(broker: Broker, *, ref: AssetRef, key_id: str, wrapped: bytes) -> bytes:
    """The data key that an owner wrapped to the broker.

    Raises:
        InvalidRequestError: it was wrapped to another key or for another version, or is not 32 bytes long.
    """
    if not _KEY_ID.match(key_id):
        raise InvalidRequestError("key_id", "not 1 to 64 of lower-case letters, digits and ._-")
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
) -> AssetVersionRow:
    """Add the next version of an asset with its data key; a unit of work.

    `inherited` is the join of the constraints of whatever the version was derived from.

    Raises:
        NotFoundError: this tenant has no such asset.
        InvalidRequestError: not the next version, or a malformed field.
        StateConflictError: the asset is revoked.
    """
    asset = _get(connection, caller, ref.asset, lock=True)
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
    assets.insert_version(connection, row)
    append(
        connection,
        Record.build(
            kind=Kind.ASSET_VERSION_ADDED,
            time=now,
            actor=actor(caller),
            tenant=asset.tenant,
            assets=(str(ref),),
            result=Result.RECORDED,
            detail={"key_id": key_id, "manifest_digest": manifest_digest.hex()},
        ),
    )
    return row


def get(connection: Connection, *, caller: Principal, asset: str) -> AssetView:
    """Read an asset with its versions.

    Raises:
        NotFoundError: this tenant has no such asset.
    """
    row = _get(connection, caller, asset, lock=False)
    return AssetView(row, tuple(assets.versions(connection, row.asset)))


def page(connection: Connection, *, caller: Principal, after: str, limit: int) -> list[AssetRow]:
    """The tenant's assets by name, from `after` on."""
    return assets.page(connection, tenant=caller.require_tenant(), after=after, limit=limit)


def revoke(connection: Connection, *, caller: Principal, asset: str, now: int) -> AssetView:
    """Stop every further release of an asset's keys and revoke its live leases; a unit of work.

    Raises:
        NotFoundError: this tenant has no such asset.
    """
    row = _get(connection, caller, asset, lock=True)
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


def _covers(lease: LeaseRow, asset: str) -> bool:
    return any(AssetRef.parse(text).asset == asset for text in lease.assets)


def _own(caller: Principal, asset: str) -> str:
    tenant = caller.require_tenant()
    if asset.partition("/")[0] != tenant:
        raise RoleError(f"asset {asset!r}: this certificate acts for tenant {tenant!r} only")
    return asset


def _get(connection: Connection, caller: Principal, asset: str, *, lock: bool) -> AssetRow:
    # Another tenant's asset answers as one that does not exist.
    if requests.asset_name(asset).partition("/")[0] != caller.require_tenant():
        raise NotFoundError("asset", asset)
    return assets.get(connection, asset, lock=lock)
