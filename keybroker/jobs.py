"""What a scheduler says of jobs: authorize one, look at it, end it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from audit.log import append
from audit.records import Kind, Record, Result
from keybroker import requests
from keybroker.broker import Broker, actor
from keybroker.constraints import (
    NETWORKS,
    STAGES,
    Constraints,
    Jurisdictions,
    disagreements,
    image_digest,
    parsed,
)
from keybroker.decision import MAX_ASSETS, release_input, unknown_asset
from keybroker.denial import DeniedError, Reason, from_denials, ordered
from keybroker.errors import InvalidRequestError, NotFoundError
from keybroker.grants import SignedGrant, sign
from keybroker.leases import record_revoked
from keybroker.obligations import merge_obligations
from keybroker.principals import Principal
from keybroker.store import assets, documents, jobs, leases, nodes, sites
from keybroker.store.jobs import JobRow
from keybroker.store.leases import LeaseRow
from keybroker.store.schema import JobState, LeaseState
from keybroker.store.sites import SiteRow
from keystead.binding import AssetRef, JobGrant, sha256

MAX_NODE_CEILING: Final = 1 << 20

MAX_CONFLICTS: Final = 64
"""Groups of conflicting assets that one refusal names."""

_DECLARED: Final = ("project", "user", "stage", "network")


@dataclass(frozen=True, slots=True)
class Authorization:
    """A decided authorization, ready to be committed."""

    grant: JobGrant
    signed: SignedGrant
    row: JobRow
    record: Record
    inputs: tuple[bytes, ...]
    now: int

    def commit(self, connection: Connection) -> SignedGrant:
        """Open the job; a unit of work.

        Raises:
            AlreadyExistsError: the tenant has a job of this id already.
        """
        jobs.insert(connection, self.row)
        documents.put_decision(connection, appraisal=b"", release=self.inputs, now=self.now)
        append(connection, self.record)
        return self.signed


def authorize(
    broker: Broker,
    *,
    caller: Principal,
    job_uid: str,
    refs: Sequence[AssetRef],
    purposes: Sequence[str],
    node_ids: Sequence[str],
    site_ids: Sequence[str],
    node_ceiling: int,
    not_after: int,
    not_before: int | None = None,
    project: str = "",
    user: str = "",
    stage: str = "",
    image: str = "",
    network: str = "",
) -> Authorization:
    """Decide whether a job may use its assets; the job is opened by the answer's `commit`.

    Args:
        broker: the running broker.
        caller: the scheduler.
        job_uid: the scheduler's id of the job.
        refs: the asset versions to open.
        purposes: what for.
        node_ids: nodes that it may run on; empty for any.
        site_ids: sites that it may run at; empty for any.
        node_ceiling: how many nodes may hold a lease at a time.
        not_after: when the grant ends.
        not_before: when it begins; None for now.
        project: what it belongs to; empty where the job does not say.
        user: whom it runs for; empty where it does not say.
        stage: of the data life cycle (`keybroker.constraints.STAGES`); empty where it does not say.
        image: SHA-256 of the code or container image, hex; empty where it does not say.
        network: how it is connected (`keybroker.constraints.NETWORKS`); empty where it does not say.

    Raises:
        DeniedError: no; it has every reason, and its record is committed.
        InvalidRequestError: a field is missing or malformed.
        NotFoundError: no such node or site.
    """
    now = broker.clock()
    tenant = caller.require_tenant()
    grant = JobGrant(
        broker=broker.name,
        grant_id=f"grant-{secrets.token_hex(16)}",
        tenant=tenant,
        job_uid=requests.identifier(job_uid, "job_uid"),
        scheduler=caller.name,
        assets=_refs(refs),
        purposes=requests.names(purposes, "purposes", at_least=1),
        nodes=requests.names(node_ids, "nodes"),
        sites=requests.names(site_ids, "sites"),
        node_ceiling=_ceiling(node_ceiling),
        not_before=_start(not_before, not_after, now=now),
        not_after=_end(broker, not_after, now=now),
        project=requests.identifier(project, "project") if project else "",
        user=requests.identifier(user, "user") if user else "",
        stage=requests.declared(stage, "stage", known=STAGES),
        image=image_digest(image, "image") if image else "",
        network=requests.declared(network, "network", known=NETWORKS),
    )
    reasons: list[Reason] = []
    inputs: list[bytes] = []
    with broker.read() as connection:
        candidates = _candidates(connection, grant)
        rows = assets.find_all_named(connection, {ref.asset for ref in grant.assets})
        versions = assets.find_versions(connection, grant.assets)
    granted: dict[str, Constraints] = {}
    for ref in grant.assets:
        asset, version = rows.get(ref.asset), versions.get(ref)
        if asset is None or version is None or asset.tenant != tenant:
            reasons.append(unknown_asset(ref))
            continue
        document = release_input(
            stage="authorize",
            grant=grant,
            job_open=True,
            live_nodes=(),
            asset=asset,
            version=version,
            holders=None,
            node=None,
            site=None,
            attestation=None,
            candidate_sites=candidates,
            # A job is asked for ahead of time: what matters is whether it may run once its grant has begun.
            now=grant.not_before,
        )
        granted[str(ref)] = parsed(version.constraints)
        inputs.append(document)
        decision = broker.policies.release.evaluate_bytes(document)
        reasons += from_denials(decision.deny)
        reasons += merge_obligations(decision.obligations)[1]
    reasons += _conflicts(granted, broker.policies.jurisdictions)
    refused = ordered(reasons)

    record = Record.build(
        kind=Kind.JOB_REFUSED if refused else Kind.JOB_AUTHORIZED,
        time=now,
        actor=actor(caller),
        tenant=tenant,
        job=grant.job_uid,
        assets=tuple(str(ref) for ref in grant.assets if ref.asset in rows and rows[ref.asset].tenant == tenant),
        policy_digest=broker.policies.release.digest,
        input_digest=sha256(documents.decision_index(appraisal=b"", release=inputs)).hex(),
        result=Result.DENIED if refused else Result.ALLOWED,
        reasons=tuple(sorted({reason.code for reason in refused})),
        detail={
            "grant": grant.grant_id,
            "purposes": grant.purposes,
            "nodes": grant.nodes,
            "sites": grant.sites,
            "node_ceiling": grant.node_ceiling,
            "not_before": grant.not_before,
            "not_after": grant.not_after,
            **{name: value for name in _DECLARED if (value := getattr(grant, name))},
            **({"image_digest": grant.image} if grant.image else {}),
        },
    )
    if refused:

        def remember(connection: Connection) -> bytes:
            documents.put_decision(connection, appraisal=b"", release=inputs, now=now)
            return append(connection, record).entry_hash

        raise DeniedError(refused, record_hash=broker.commit(remember))
    signed = sign(grant, broker.keys.grant)
    row = JobRow(
        grant_id=grant.grant_id,
        tenant=tenant,
        job_uid=grant.job_uid,
        scheduler=grant.scheduler,
        grant=signed.grant,
        signature=signed.signature,
        signing_key_id=signed.key_id,
        state=JobState.OPEN,
        not_before=grant.not_before,
        not_after=grant.not_after,
        node_ceiling=grant.node_ceiling,
        created_at=now,
    )
    return Authorization(grant, signed, row, record, tuple(inputs), now)


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as its tenant sees it."""

    row: JobRow
    grant: JobGrant
    live_leases: int


def get(connection: Connection, *, tenant: str, job_uid: str, now: int) -> JobView:
    """Read a job.

    Raises:
        NotFoundError: this tenant has no such job.
    """
    row = _find(connection, tenant=tenant, job_uid=job_uid, lock=False)
    return JobView(row, JobGrant.parse(row.grant), leases.count_live(connection, row.grant_id, now=now))


def end(
    connection: Connection, *, caller: Principal, tenant: str, job_uid: str, now: int
) -> tuple[JobView, list[LeaseRow]]:
    """Close a job and revoke its live leases; a unit of work. Closing a closed job changes nothing.

    Raises:
        NotFoundError: this tenant has no such job.
    """
    row = _find(connection, tenant=tenant, job_uid=job_uid, lock=True)
    grant = JobGrant.parse(row.grant)
    if row.state is JobState.CLOSED:
        return JobView(row, grant, 0), []
    closed = jobs.close(connection, row.grant_id)
    revoked = leases.end_all(connection, row.grant_id, state=LeaseState.REVOKED, now=now)
    record_revoked(connection, revoked, caller=caller, because="JOB_ENDED", now=now)
    append(
        connection,
        Record.build(
            kind=Kind.JOB_ENDED,
            time=now,
            actor=actor(caller),
            tenant=tenant,
            job=job_uid,
            assets=tuple(str(ref) for ref in grant.assets),
            result=Result.RECORDED,
            detail={"grant": grant.grant_id, "revoked_leases": len(revoked)},
        ),
    )
    return JobView(closed, grant, 0), revoked


def _conflicts(granted: Mapping[str, Constraints], jurisdictions: Jurisdictions) -> list[Reason]:
    """Why the job's assets cannot be used together: for each field, which of them leave nothing."""
    found = disagreements(granted, jurisdictions)
    return [
        Reason(
            "CONSTRAINTS_CONFLICT",
            f"assets: {item.field}",
            "constraints that one job can satisfy together",
            f"{' and '.join(item.names)}: {item.why}",
            "The job's assets may not be used together",
            "use them in separate jobs, or ask an owner to declassify one of them",
        )
        for item in found[:MAX_CONFLICTS]
    ]


def _find(connection: Connection, *, tenant: str, job_uid: str, lock: bool) -> JobRow:
    wanted = requests.identifier(job_uid, "job_uid")
    row = jobs.find_by_uid(connection, tenant=tenant, job_uid=wanted, lock=lock)
    if row is None:
        raise NotFoundError("job", job_uid)
    return row


def _refs(refs: Sequence[AssetRef]) -> tuple[AssetRef, ...]:
    if not 1 <= len(refs) <= MAX_ASSETS or len(set(refs)) != len(refs):
        raise InvalidRequestError("assets", f"1 to {MAX_ASSETS} different assets are needed")
    return tuple(sorted(refs, key=str))


def _ceiling(value: int) -> int:
    if not 1 <= value <= MAX_NODE_CEILING:
        raise InvalidRequestError("node_ceiling", f"{value}: 1 to {MAX_NODE_CEILING} nodes")
    return value


def _start(not_before: int | None, not_after: int, *, now: int) -> int:
    if not_before is None:
        return now
    if not now <= not_before < not_after:
        raise InvalidRequestError("start_time", "must be neither before now nor at or after expire_time")
    return not_before


def _end(broker: Broker, not_after: int, *, now: int) -> int:
    longest = now + broker.config.limits.grant_seconds
    if not now < not_after <= longest:
        raise InvalidRequestError(
            "expire_time", f"must be after now and within {broker.config.limits.grant_seconds} seconds"
        )
    return not_after


def _candidates(connection: Connection, grant: JobGrant) -> list[SiteRow] | None:
    """The sites where the job may run, where the request says; None where it may run anywhere."""
    if not grant.nodes and not grant.sites:
        return None
    named = {site_id: sites.get(connection, site_id) for site_id in grant.sites}
    if not grant.nodes:
        return list(named.values())
    standing = {nodes.get(connection, node_id).site_id for node_id in grant.nodes}
    if grant.sites:
        standing &= named.keys()
    return [sites.get(connection, site_id) for site_id in sorted(standing)]
