"""Making constraints stricter where they stand: a version, everything derived from it, and the leases that live now.

What is stricter for a version is stricter for whatever was derived from it, so that the constraints of what is derived
stay at least as strict as those of what it came from. A lease that would not have been granted under the new
constraints is revoked in the same transaction. That is found out by the release policy itself, on the input of the
decision that granted or last renewed the lease; where that input is gone the lease is revoked.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from audit.log import append
from audit.query import find_payload
from audit.records import MAX_ITEMS, Kind, Record, Result
from keybroker import assets as registry
from keybroker.assets import AssetView
from keybroker.broker import Broker, actor
from keybroker.constraints import BOTTOM, Constraints, conflicts, join, parsed
from keybroker.decision import reconsidered
from keybroker.errors import InvalidRequestError, NotFoundError
from keybroker.leases import revoke_all
from keybroker.obligations import parse_obligations
from keybroker.principals import Principal
from keybroker.store import assets, documents, leases, lineage
from keybroker.store.assets import AssetRow
from keybroker.store.leases import LeaseRow
from keystead.binding import AssetRef
from policy.inputs import HoldersInput


@dataclass(frozen=True, slots=True)
class Tightened:
    """What became stricter.

    Attributes:
        versions: whose constraints changed, sorted.
        revoked: the leases that were revoked for it.
    """

    versions: tuple[AssetRef, ...]
    revoked: tuple[LeaseRow, ...]


def lock_with_descendants(
    connection: Connection, refs: Collection[AssetRef], names: Collection[str]
) -> tuple[dict[str, AssetRow], set[AssetRef]]:
    """Lock the assets `names`, those of `refs`, and those of everything derived from `refs`.

    Under these locks nothing more can be derived from any of it, and no lease for it commits.

    Returns:
        The assets by name, and what is derived from `refs`.

    Raises:
        LineageTooLargeError: too much is derived from them.
    """
    derived = lineage.descendants(connection, refs)
    while True:
        wanted = {*names, *(ref.asset for ref in refs), *(ref.asset for ref in derived)}
        locked = assets.lock_all(connection, wanted)
        # What was derived while the locks were waited for.
        derived = lineage.descendants(connection, refs)
        if {ref.asset for ref in derived} <= wanted:
            return locked, derived


def tighten(
    connection: Connection,
    *,
    broker: Broker,
    caller: Principal,
    refs: Collection[AssetRef],
    extra: Constraints,
    because: str,
    now: int,
) -> Tightened:
    """Join `extra` to the constraints of `refs`; part of a unit of work that holds their assets' locks.

    `refs` must hold whatever is derived from any of them (`lock_with_descendants`); `because` is the code that records
    of revoked leases have.

    Raises:
        ConstraintsError: the constraints are too large together.
    """
    changed: dict[AssetRef, str] = {}
    for ref, row in sorted(assets.find_versions(connection, refs).items()):
        text = join(parsed(row.constraints), extra).to_json()
        if text != row.constraints:
            parsed(text)  # what cannot be read back, being too large, must not be written
            assets.set_version_constraints(connection, ref, text)
            changed[ref] = text
    violating = _violating(connection, broker=broker, changed=changed, now=now)
    revoke_all(connection, violating, caller=caller, because=because, now=now)
    return Tightened(tuple(changed), tuple(violating))


def constrain(
    connection: Connection,
    *,
    broker: Broker,
    caller: Principal,
    asset: str,
    version: int,
    extra: Constraints,
    now: int,
) -> tuple[AssetView, Tightened]:
    """Join `extra` to what an asset demands, or one version of it where `version` is not 0; a unit of work.

    Whatever was derived from it becomes as strict. Nothing is ever loosened; that takes a declassification.

    Raises:
        NotFoundError: this tenant has no such asset or version.
        InvalidRequestError: `extra` asks for nothing, names an unknown area, or leaves nothing that satisfies it.
        LineageTooLargeError: too much is derived from it.
    """
    if extra == BOTTOM:
        raise InvalidRequestError("constraints", "ask for nothing: name what is to be stricter")
    registry.check_sizes(extra)
    registry.check_areas(extra, broker.policies.jurisdictions)
    row = registry.get_own(connection, caller, asset, lock=False)
    if version:
        roots = [assets.get_version(connection, AssetRef(row.asset, version)).ref]
    else:
        # No version is added while the asset is locked.
        assets.lock_all(connection, [row.asset])
        roots = [each.ref for each in assets.versions(connection, row.asset)]
    locked, derived = lock_with_descendants(connection, roots, {row.asset})
    row = locked[row.asset]
    texts = {str(ref): each.constraints for ref, each in assets.find_versions(connection, roots).items()}
    if not version:
        texts[row.asset] = row.constraints
    for name, text in texts.items():
        for conflict in conflicts(join(parsed(text), extra), broker.policies.jurisdictions):
            raise InvalidRequestError(conflict.field, f"{name}: {conflict.why}; to close it for good, revoke it")
    if not version:
        base = join(parsed(row.constraints), extra).to_json()
        parsed(base)
        assets.set_constraints(connection, row.asset, base)
    tightened = tighten(
        connection,
        broker=broker,
        caller=caller,
        refs={*roots, *derived},
        extra=extra,
        because="CONSTRAINTS_TIGHTENED",
        now=now,
    )
    append(
        connection,
        Record.build(
            kind=Kind.ASSET_CONSTRAINED,
            time=now,
            actor=actor(caller),
            tenant=row.tenant,
            assets=tuple(str(ref) for ref in tightened.versions[:MAX_ITEMS]),
            result=Result.RECORDED,
            detail={
                "asset": row.asset,
                "version": version,
                "added_constraints_digest": documents.put(connection, extra.to_json().encode("utf-8"), now=now).hex(),
                "tightened": len(tightened.versions),
                "revoked_leases": len(tightened.revoked),
            },
        ),
    )
    after = assets.get(connection, row.asset)
    return AssetView(after, tuple(assets.versions(connection, after.asset))), tightened


def _violating(connection: Connection, *, broker: Broker, changed: Mapping[AssetRef, str], now: int) -> list[LeaseRow]:
    """The live leases that the new constraints do not allow. Where a ceiling is too low, the oldest ones stay."""
    found: list[LeaseRow] = []
    kept: dict[str, dict[str, str]] = {}
    for lease in leases.live_covering(connection, {ref.asset for ref in changed}, now=now):
        covered = [AssetRef.parse(text) for text in lease.assets]
        with_this = {
            asset: {**kept.get(asset, {}), lease.lease_id: lease.node_id} for asset in {ref.asset for ref in covered}
        }
        affected = {ref: changed[ref] for ref in covered if ref in changed}
        if affected and not _still_allowed(
            connection, broker=broker, lease=lease, affected=affected, holders=with_this, now=now
        ):
            found.append(lease)
        else:
            kept |= with_this
    return found


def _still_allowed(
    connection: Connection,
    *,
    broker: Broker,
    lease: LeaseRow,
    affected: Mapping[AssetRef, str],
    holders: Mapping[str, Mapping[str, str]],
    now: int,
) -> bool:
    inputs = _last_decision(connection, lease)
    duties = _duties(connection, lease)
    for ref, text in affected.items():
        constraints = parsed(text)
        if constraints.retain_until is not None and constraints.retain_until < lease.expires_at:
            return False
        if not _carried(constraints.obligations, duties):
            return False
        document = inputs.get(ref)
        if document is None:
            return False
        held = holders[ref.asset]
        asked = (constraints.node_ceiling, constraints.copy_ceiling) != (None, None)
        counted = HoldersInput(nodes=len(set(held.values())), leases=len(held)) if asked else None
        decision = broker.policies.release.evaluate_bytes(reconsidered(document, constraints=text, holders=counted))
        if decision.deny or not decision.allow:
            return False
    return lease.expires_at > now


def _carried(asked: Mapping[str, Mapping[str, int]], duties: Mapping[str, Mapping[str, object]]) -> bool:
    """Whether a lease's duties are at least as strict as those that are asked for."""
    for code, params in asked.items():
        held = duties.get(code)
        if held is None:
            return False
        for name, most in params.items():
            value = held.get(name)
            if not isinstance(value, int) or value > most:
                return False
    return True


def _duties(connection: Connection, lease: LeaseRow) -> dict[str, Mapping[str, object]]:
    renewed = leases.renewals(connection, lease.lease_id)
    text = renewed[-1].obligations if renewed else lease.obligations
    return {duty.code: duty.params for duty in parse_obligations(text)}


def _last_decision(connection: Connection, lease: LeaseRow) -> dict[AssetRef, bytes]:
    """The release policy's inputs when the lease was granted or last renewed; empty where they are not kept."""
    renewed = leases.renewals(connection, lease.lease_id)
    entry_hash = renewed[-1].entry_hash if renewed else lease.entry_hash
    payload = find_payload(connection, entry_hash)
    if payload is None:
        return {}
    digest = Record.parse(payload).input_digest
    try:
        index = json.loads(documents.get(connection, bytes.fromhex(digest or "")))
        inputs = [documents.get(connection, bytes.fromhex(each)) for each in index["release"]]
    except NotFoundError:
        return {}
    found = {}
    for document in inputs:
        asset = json.loads(document)["asset"]
        found[AssetRef(asset["asset"], asset["version"])] = document
    return found
