"""Lineage: what was derived from what, and the constraints that follow from it.

What a job makes is derived from every asset version in every lease that the job was ever granted, whatever became of
the lease: nobody lists it, so nobody can leave one out. An owner who adds a version by hand may declare what it was
derived from, and may declare more later; nothing is ever taken back. A version's constraints are its asset's, joined
with those of all its parents (`keybroker.constraints.join`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection

from audit.log import append
from audit.records import Kind, Record, Result
from keybroker import assets as registry
from keybroker import requests
from keybroker.broker import Broker, actor
from keybroker.constraints import Constraints, Disagreement, disagreements, join_all, parsed
from keybroker.denial import DeniedError, Reason, RefusedError, ordered
from keybroker.errors import (
    InvalidRequestError,
    LineageCycleError,
    LineageTooLargeError,
    NotFoundError,
    NothingGrantedError,
    StateConflictError,
)
from keybroker.principals import Principal
from keybroker.store import assets, documents, jobs, leases, lineage
from keybroker.store.assets import AssetRow, AssetVersionRow
from keybroker.store.leases import LeaseRow
from keybroker.store.lineage import EdgeRow
from keybroker.store.schema import AssetKind, AssetState, LeaseState
from keybroker.tightening import Tightened, lock_with_descendants, tighten
from keystead.binding import AssetRef, output_message

MAX_PARENTS: Final = 256
"""Asset versions that one version may be derived from directly."""

MAX_EDGES: Final = 2_000
"""Steps in one answer about lineage."""

MAX_CONFLICTS: Final = 64
"""Groups of conflicting parents that one refusal names."""


@dataclass(frozen=True, slots=True)
class NewAsset:
    """An asset that an output is the first version of; `constraints` is canonical JSON, or empty for the inherited."""

    kind: AssetKind
    constraints: str


@dataclass(frozen=True, slots=True)
class Source:
    """Whose output it is: a job, and the live lease by whose attested key a node speaks for it."""

    tenant: str
    job_uid: str
    lease_id: str | None


@dataclass(frozen=True, slots=True)
class Registered:
    """An output that is a version now, with what it was derived from."""

    version: AssetVersionRow
    parents: tuple[AssetRef, ...]


def by_scheduler(caller: Principal, *, job_uid: str) -> Source:
    """A job of the calling scheduler's tenant. Whether there is one is found out when the output is registered."""
    return Source(caller.require_tenant(), requests.identifier(job_uid, "job_uid"), None)


def by_lease(
    broker: Broker,
    *,
    lease_id: str,
    signature: bytes,
    ref: AssetRef,
    key_id: str,
    manifest_digest: bytes,
    wrapped_key: bytes,
    new: NewAsset | None,
) -> Source:
    """The job of a lease, where the lease's attested key signed for this very output.

    Raises:
        NotFoundError: no such lease.
        InvalidRequestError: another key signed, or something else was signed.
    """
    with broker.read() as connection:
        lease = leases.get(connection, requests.identifier(lease_id, "lease.lease_id"))
    message = output_message(
        lease_id=lease.lease_id,
        ref=ref,
        key_id=registry.check_key_id(key_id),
        manifest_digest=requests.digest(manifest_digest, "manifest_digest"),
        wrapped_key=wrapped_key,
        kind="" if new is None else new.kind.value,
        constraints="" if new is None else new.constraints,
    )
    try:
        Ed25519PublicKey.from_public_bytes(lease.signing_key).verify(signature, message)
    except InvalidSignature:
        raise InvalidRequestError(
            "lease.signature", "not made over this output by the key that the lease was granted to"
        ) from None
    return Source(lease.tenant, lease.job_uid, lease.lease_id)


def register_output(
    connection: Connection,
    *,
    broker: Broker,
    caller: Principal,
    source: Source,
    ref: AssetRef,
    new: NewAsset | None,
    key_id: str,
    data_key: bytes,
    manifest_digest: bytes,
    now: int,
) -> Registered:
    """Register what a job made as the next version of an asset, derived from all that the job was granted.

    A unit of work; to be called within `recorded`.

    Raises:
        NotFoundError: the job's tenant has no such job or asset.
        NothingGrantedError: the job was never granted a lease.
        StateConflictError: the node's lease is not live any more, or the asset is revoked.
        AlreadyExistsError: the asset that is to be registered exists.
        InvalidRequestError: not the next version, a kind that no job makes, or a malformed field.
        LineageTooLargeError: it would descend from too many versions.
        RefusedError: a parent is revoked, or nothing satisfies the parents' constraints together.
    """
    granted = _granted(connection, source, now=now)
    parents = tuple(sorted(granted))
    _check_size(parents)
    if requests.asset_name(ref.asset, "ref.asset").partition("/")[0] != source.tenant:
        raise NotFoundError("asset", ref.asset)
    locked = assets.lock_all(connection, {ref.asset, *(parent.asset for parent in parents)})
    versions = assets.find_versions(connection, parents)
    if ref in granted:
        raise LineageCycleError("ref", f"{ref}: the job was granted it; what it made is a later version")
    inherited = join_all(parsed(versions[parent].constraints) for parent in parents)
    asset = _output_asset(broker, locked.get(ref.asset), ref=ref, new=new, inherited=inherited, now=now)
    reasons = [_revoked(parent) for parent in parents if not _usable(locked[parent.asset], versions[parent])]
    demanded = {str(parent): parsed(versions[parent].constraints) for parent in parents}
    reasons += _conflicts({ref.asset: parsed(asset.constraints)} | demanded, broker)
    if reasons:
        _refuse(reasons, caller=caller, source=source, ref=ref, parents=parents, now=now)
    if new is not None:
        registry.insert_asset(connection, asset, who=actor(caller), now=now)
    row = registry.insert_version(
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
    lineage.insert(
        connection,
        [
            EdgeRow(
                child_asset=ref.asset,
                child_version=ref.version,
                parent_asset=parent.asset,
                parent_version=parent.version,
                grant_id=granted[parent].grant_id,
                lease_id=granted[parent].lease_id,
                created_at=now,
            )
            for parent in parents
        ],
    )
    lineage.ancestors(connection, [ref])
    append(
        connection,
        Record.build(
            kind=Kind.ASSET_OUTPUT_REGISTERED,
            time=now,
            actor=actor(caller),
            tenant=source.tenant,
            job=source.job_uid,
            lease=source.lease_id,
            # The output and, besides it, what it was derived from.
            assets=(str(ref), *map(str, parents)),
            result=Result.RECORDED,
            detail={
                "output": str(ref),
                "key_id": key_id,
                "manifest_digest": manifest_digest.hex(),
                "constraints_digest": documents.put(connection, row.constraints.encode("utf-8"), now=now).hex(),
            },
        ),
    )
    return Registered(row, parents)


def add_version(
    connection: Connection,
    *,
    broker: Broker,
    caller: Principal,
    ref: AssetRef,
    key_id: str,
    data_key: bytes,
    manifest_digest: bytes,
    parents: Sequence[AssetRef],
    now: int,
    description_digest: bytes = b"",
) -> AssetVersionRow:
    """Add a version by hand, derived from what its owner declares, if anything; a unit of work.

    `description_digest` is the SHA-256 of a description of the data that the record cites; empty where there is none.

    Raises:
        NotFoundError: this tenant has no such asset, or no such parent.
        InvalidRequestError: not the next version, a malformed field, a parent that is there twice.
        LineageCycleError: it names itself.
        StateConflictError: the asset is revoked.
        RefusedError: a parent is revoked, or nothing satisfies the constraints together.
    """
    declared = _declared(caller, ref, parents)
    locked = assets.lock_all(connection, {ref.asset, *(parent.asset for parent in declared)})
    versions = _found(connection, declared)
    asset = registry.get_own(connection, caller, ref.asset, lock=True)
    if declared and asset.kind is AssetKind.DATASET:
        raise InvalidRequestError("parents", _RAW)
    reasons = [_revoked(parent) for parent in declared if not _usable(locked[parent.asset], versions[parent])]
    demanded = {str(parent): parsed(versions[parent].constraints) for parent in declared}
    if declared:
        reasons += _conflicts({ref.asset: parsed(asset.constraints)} | demanded, broker)
    if reasons:
        source = Source(asset.tenant, "", None)
        _refuse(reasons, caller=caller, source=source, ref=ref, parents=declared, now=now)
    row = registry.add_version(
        connection,
        broker=broker,
        caller=caller,
        ref=ref,
        key_id=key_id,
        data_key=data_key,
        manifest_digest=manifest_digest,
        inherited=join_all(demanded.values()),
        parents=declared,
        description_digest=description_digest,
        now=now,
    )
    lineage.insert(connection, [_declared_edge(ref, parent, now=now) for parent in declared])
    lineage.ancestors(connection, [ref])
    return row


def declare_parents(
    connection: Connection,
    *,
    broker: Broker,
    caller: Principal,
    ref: AssetRef,
    parents: Sequence[AssetRef],
    now: int,
) -> tuple[AssetVersionRow, Tightened]:
    """Declare more of what a version was derived from; it and all that was derived from it become as strict.

    A unit of work.

    Raises:
        NotFoundError: this tenant has no such version, or no such parent.
        LineageCycleError: a parent is the version itself, or was derived from it.
        InvalidRequestError: no parent, too many, or one twice; or the version is raw data.
        LineageTooLargeError: too much hangs together.
        RefusedError: a parent is revoked, or nothing satisfies the constraints together.
    """
    declared = _declared(caller, ref, parents)
    if not declared:
        raise InvalidRequestError("parents", "at least one is needed")
    locked, derived = lock_with_descendants(connection, [ref], {parent.asset for parent in declared})
    asset = registry.get_own(connection, caller, ref.asset, lock=False)
    row = assets.get_version(connection, ref)
    versions = _found(connection, declared)
    if asset.kind is AssetKind.DATASET:
        raise InvalidRequestError("parents", _RAW)
    for parent in declared:
        if parent in derived:
            raise LineageCycleError("parents", f"{parent} was itself derived from {ref}")
    _check_size({*declared, *lineage.parents(connection, ref)})
    demanded = {str(parent): parsed(versions[parent].constraints) for parent in declared}
    reasons = [_revoked(parent) for parent in declared if not _usable(locked[parent.asset], versions[parent])]
    reasons += _conflicts({str(ref): parsed(row.constraints)} | demanded, broker)
    if reasons:
        source = Source(asset.tenant, "", None)
        _refuse(reasons, caller=caller, source=source, ref=ref, parents=declared, now=now)
    lineage.insert(connection, [_declared_edge(ref, parent, now=now) for parent in declared])
    lineage.ancestors(connection, [ref, *derived])
    tightened = tighten(
        connection,
        broker=broker,
        caller=caller,
        refs={ref, *derived},
        extra=join_all(demanded.values()),
        because="PARENTS_DECLARED",
        now=now,
    )
    row = assets.get_version(connection, ref)
    append(
        connection,
        Record.build(
            kind=Kind.ASSET_PARENTS_DECLARED,
            time=now,
            actor=actor(caller),
            tenant=asset.tenant,
            assets=(str(ref), *map(str, declared)),
            result=Result.RECORDED,
            detail={
                "version": str(ref),
                "constraints_digest": documents.put(connection, row.constraints.encode("utf-8"), now=now).hex(),
                "tightened": len(tightened.versions),
                "revoked_leases": len(tightened.revoked),
            },
        ),
    )
    return row, tightened


@dataclass(frozen=True, slots=True)
class LineageView:
    """A part of the lineage graph.

    Attributes:
        roots: where the question began.
        versions: every version that was met, roots included, with its asset.
        edges: every step between them.
        truncated: there is more.
    """

    roots: tuple[AssetRef, ...]
    versions: Mapping[AssetRef, tuple[AssetRow, AssetVersionRow]]
    edges: tuple[EdgeRow, ...]
    truncated: bool


def view(
    connection: Connection, *, caller: Principal, asset: str, version: int, up: bool, limit: int = MAX_EDGES
) -> LineageView:
    """What a version, or every version of an asset where `version` is 0, was derived from, or what was from it.

    Raises:
        NotFoundError: this tenant has no such asset or version.
    """
    row = registry.get_own(connection, caller, asset, lock=False)
    if version:
        roots = [assets.get_version(connection, AssetRef(row.asset, version)).ref]
    else:
        roots = [each.ref for each in assets.versions(connection, row.asset)]
    follow = lineage.edges_up if up else lineage.edges_down
    edges = follow(connection, roots[:limit], limit=limit + 1)
    kept = edges[:limit]
    met = {*roots[:limit], *(edge.child for edge in kept), *(edge.parent for edge in kept)}
    return LineageView(
        roots=tuple(roots[:limit]),
        versions=assets.find_with_versions(connection, met),
        edges=tuple(kept),
        truncated=len(edges) > limit or len(roots) > limit,
    )


def revoke_descendants(connection: Connection, *, caller: Principal, asset: str, now: int) -> tuple[AssetRef, ...]:
    """Revoke every version of other assets that was derived from `asset`, with their live leases.

    Part of the unit of work that revokes the asset. Versions that are revoked already are not revoked again.

    Raises:
        NotFoundError: this tenant has no such asset.
        LineageTooLargeError: too much was derived from it.
    """
    row = registry.get_own(connection, caller, asset, lock=False)
    roots = [each.ref for each in assets.versions(connection, row.asset)]
    _, derived = lock_with_descendants(connection, roots, {row.asset})
    others = {ref for ref in derived if ref.asset != row.asset}
    active = sorted(
        ref for ref, found in assets.find_versions(connection, others).items() if found.state is AssetState.ACTIVE
    )
    for ref in active:
        assets.set_version_state(connection, ref, AssetState.REVOKED)
    registry.end_leases(connection, active, caller=caller, because="PARENT_REVOKED", now=now)
    for start in range(0, len(active), _RECORDED):
        append(
            connection,
            Record.build(
                kind=Kind.ASSET_REVOKED,
                time=now,
                actor=actor(caller),
                tenant=row.tenant,
                assets=tuple(str(ref) for ref in active[start : start + _RECORDED]),
                result=Result.RECORDED,
                detail={"derived_from": row.asset},
            ),
        )
    return tuple(active)


@contextmanager
def recorded(broker: Broker) -> Iterator[None]:
    """Within the block, a `RefusedError` of a unit of work becomes a denial whose record is committed.

    Raises:
        DeniedError: in the place of a `RefusedError`.
    """
    try:
        yield
    except RefusedError as refused:
        record = refused.record
        entry = broker.commit(lambda connection: append(connection, record).entry_hash)
        raise DeniedError(refused.reasons, record_hash=entry) from None


_RAW: Final = "raw data are derived from nothing; register what is made of them as another kind, such as preprocessed"
_RECORDED: Final = 256


def _granted(connection: Connection, source: Source, *, now: int) -> dict[AssetRef, LeaseRow]:
    """Every asset version that the job was ever granted, with the first lease that covered it; under the job's lock."""
    job = jobs.find_by_uid(connection, tenant=source.tenant, job_uid=source.job_uid, lock=True)
    if job is None:
        raise NotFoundError("job", source.job_uid)
    if source.lease_id is not None:
        lease = leases.get(connection, source.lease_id, lock=True)
        if lease.state is not LeaseState.LIVE or lease.expires_at <= now:
            over = LeaseState.EXPIRED if lease.state is LeaseState.LIVE else lease.state
            raise StateConflictError("lease", lease.lease_id, state=over, expected=LeaseState.LIVE)
    granted: dict[AssetRef, LeaseRow] = {}
    for lease in leases.of_job(connection, tenant=source.tenant, job_uid=source.job_uid):
        for text in lease.assets:
            granted.setdefault(AssetRef.parse(text), lease)
    if not granted:
        raise NothingGrantedError(source.job_uid)
    return granted


def _output_asset(
    broker: Broker,
    found: AssetRow | None,
    *,
    ref: AssetRef,
    new: NewAsset | None,
    inherited: Constraints,
    now: int,
) -> AssetRow:
    """The asset that the output is a version of: the one that is there, or the one to be registered."""
    if new is None:
        if found is None:
            raise NotFoundError("asset", ref.asset)
        if found.kind is AssetKind.DATASET:
            raise InvalidRequestError("ref.asset", _RAW)
        return found
    if new.kind is AssetKind.DATASET:
        raise InvalidRequestError("new_asset.kind", _RAW)
    demanded = inherited
    if new.constraints:
        demanded = Constraints.parse(new.constraints)
        registry.check_constraints(demanded, broker.policies.jurisdictions, now=now)
    return AssetRow(
        asset=ref.asset,
        tenant=ref.asset.partition("/")[0],
        kind=new.kind,
        state=AssetState.ACTIVE,
        created_at=now,
        constraints=demanded.to_json(),
    )


def _declared(caller: Principal, ref: AssetRef, parents: Sequence[AssetRef]) -> tuple[AssetRef, ...]:
    if len(set(parents)) != len(parents):
        raise InvalidRequestError("parents", "one is there twice")
    _check_size(parents)
    for parent in parents:
        if parent == ref:
            raise LineageCycleError("parents", f"{ref} cannot be derived from itself")
        # Another tenant's version answers as one that does not exist.
        if parent.asset.partition("/")[0] != caller.require_tenant():
            raise NotFoundError("asset version", str(parent))
    return tuple(sorted(parents))


def _check_size(parents: Sequence[AssetRef] | set[AssetRef]) -> None:
    if len(parents) > MAX_PARENTS:
        raise LineageTooLargeError(f"{len(parents)} parents, a version may be derived from {MAX_PARENTS}")


def _found(connection: Connection, refs: Sequence[AssetRef]) -> dict[AssetRef, AssetVersionRow]:
    versions = assets.find_versions(connection, refs)
    for ref in refs:
        if ref not in versions:
            raise NotFoundError("asset version", str(ref))
    return versions


def _declared_edge(ref: AssetRef, parent: AssetRef, *, now: int) -> EdgeRow:
    return EdgeRow(
        child_asset=ref.asset,
        child_version=ref.version,
        parent_asset=parent.asset,
        parent_version=parent.version,
        grant_id=None,
        lease_id=None,
        created_at=now,
    )


def _usable(asset: AssetRow, version: AssetVersionRow) -> bool:
    return AssetState.ACTIVE is asset.state is version.state


def _revoked(parent: AssetRef) -> Reason:
    return Reason(
        "ASSET_REVOKED",
        "parents",
        "parents whose keys may still be released",
        str(parent),
        "What is derived from a revoked asset version is not registered",
        "make it anew from what is not revoked",
    )


def _conflicts(named: Mapping[str, Constraints], broker: Broker) -> list[Reason]:
    found: list[Disagreement] = disagreements(named, broker.policies.jurisdictions)
    return [
        Reason(
            "CONSTRAINTS_CONFLICT",
            f"parents: {item.field}",
            "constraints that what is derived can satisfy together",
            f"{' and '.join(item.names)}: {item.why}",
            "Nothing satisfies what the asset and all its parents demand",
            "keep them in separate jobs, or ask the owner to declassify one of them",
        )
        for item in found[:MAX_CONFLICTS]
    ]


def _refuse(
    reasons: Sequence[Reason],
    *,
    caller: Principal,
    source: Source,
    ref: AssetRef,
    parents: Sequence[AssetRef],
    now: int,
) -> NoReturn:
    refused = ordered(reasons)
    record = Record.build(
        kind=Kind.ASSET_OUTPUT_REFUSED,
        time=now,
        actor=actor(caller),
        tenant=source.tenant,
        job=source.job_uid or None,
        lease=source.lease_id,
        assets=tuple(map(str, parents)),
        result=Result.DENIED,
        reasons=tuple(sorted({reason.code for reason in refused})),
        detail={"output": str(ref)},
    )
    raise RefusedError(refused, record)
