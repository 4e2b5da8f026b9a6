"""What a scheduler says of jobs: authorize one, look at it, extend, preempt, requeue and end it.

A job has one id for its whole life. It is open from when it is authorized, may be extended, preempted and requeued, and
is closed once and for ever. What ends or stops it does so in two steps: first the job's state, under its lock, after
which no lease of it can be granted or renewed; then its leases, in bounded transactions. The caller is answered when
none is left; where a broker stops in between, the sweep finishes.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import rfc8785
from sqlalchemy import Connection

from audit.log import append
from audit.records import Kind, Record, Result
from keybroker import requests
from keybroker.broker import Broker, actor
from keybroker.constraints import (
    BUDGETS,
    MAX_INTEGER,
    NETWORKS,
    STAGES,
    Constraints,
    Jurisdictions,
    disagreements,
    image_digest,
    parsed,
)
from keybroker.decision import MAX_ASSETS, budget_inputs, job_budgets, release_input, unknown_asset
from keybroker.denial import DeniedError, Reason, from_denials, ordered
from keybroker.errors import InvalidRequestError, NotFoundError, StateConflictError
from keybroker.grants import SignedGrant, sign
from keybroker.leases import revoke_held
from keybroker.obligations import merge_obligations
from keybroker.policies import TenantPolicies
from keybroker.principals import Principal
from keybroker.store import assets, documents, jobs, leases, nodes, sites
from keybroker.store.budgets import spent
from keybroker.store.jobs import JobRow, Standing
from keybroker.store.leases import Holding
from keybroker.store.schema import JobState
from keybroker.store.sites import SiteRow
from keystead.binding import AssetRef, JobGrant, sha256

MAX_NODE_CEILING: Final = 1 << 20

MAX_CONFLICTS: Final = 64
"""Groups of conflicting assets that one refusal names."""

NO_BUDGETS: Final[Mapping[str, int]] = MappingProxyType({})

_DECLARED: Final = ("project", "user", "stage", "network")


@dataclass(frozen=True, slots=True)
class Authorization:
    """A decided grant, ready to be committed.

    Attributes:
        grant: the grant.
        signed: the same with the broker's signature.
        row: the job as it will stand.
        before: the job as it was when this was decided; None where it is opened.
        record: what the log will say.
        inputs: what the policy was asked.
        now: when it was decided.
    """

    grant: JobGrant
    signed: SignedGrant
    row: JobRow
    before: JobRow | None
    record: Record
    inputs: tuple[bytes, ...]
    now: int

    def commit(self, connection: Connection) -> SignedGrant:
        """Open the job, or give it this grant; a unit of work.

        Raises:
            AlreadyExistsError: the tenant has a job of this id already.
            StateConflictError: the job changed since this was decided.
        """
        if self.before is None:
            jobs.insert(connection, self.row)
        else:
            found = jobs.get(connection, self.before.grant_id, lock=True)
            if found != self.before:
                raise StateConflictError(
                    "job", found.job_uid, state=f"changed, now {found.standing}", expected="as it was a moment ago"
                )
            jobs.regrant(connection, self.row, grant_id=self.grant.grant_id, now=self.now)
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
    budgets: Mapping[str, int] = NO_BUDGETS,
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
        budgets: what the job may use of each asset (`keybroker.constraints.BUDGETS`), over all its attempts.

    Raises:
        DeniedError: no; it has every reason, and its record is committed.
        InvalidRequestError: a field is missing or malformed.
        NotFoundError: no such node or site.
    """
    now = broker.clock()
    grant, row = proposed(
        broker,
        caller=caller,
        job_uid=job_uid,
        refs=refs,
        purposes=purposes,
        node_ids=node_ids,
        site_ids=site_ids,
        node_ceiling=node_ceiling,
        not_after=not_after,
        not_before=not_before,
        project=project,
        user=user,
        stage=stage,
        image=image,
        network=network,
        budgets=budgets,
        now=now,
    )
    return _decide(broker, caller=caller, kind=Kind.JOB_AUTHORIZED, grant=grant, row=row, before=None, now=now)


def proposed(
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
    now: int,
    not_before: int | None = None,
    project: str = "",
    user: str = "",
    stage: str = "",
    image: str = "",
    network: str = "",
    budgets: Mapping[str, int] = NO_BUDGETS,
) -> tuple[JobGrant, JobRow]:
    """What a job asks for, checked by itself, and the job as it would stand; `judge` says whether it may.

    Arguments as `authorize`.

    Raises:
        InvalidRequestError: a field is missing or malformed.
    """
    grant = JobGrant(
        broker=broker.name,
        grant_id=_grant_id(),
        tenant=caller.require_tenant(),
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
    row = JobRow(
        grant_id=grant.grant_id,
        tenant=grant.tenant,
        job_uid=grant.job_uid,
        scheduler=grant.scheduler,
        grant=b"",
        signature=b"",
        signing_key_id="",
        state=JobState.OPEN,
        not_before=grant.not_before,
        not_after=grant.not_after,
        node_ceiling=grant.node_ceiling,
        created_at=now,
        budgets=_budgets(budgets),
    )
    return grant, row


def extend(broker: Broker, *, caller: Principal, job_uid: str, not_after: int) -> Authorization:
    """Decide whether a running job may go on until `not_after`; the answer's `commit` gives it the new grant.

    The new grant differs from the present one in its id and its end alone. Leases under a former grant of the same
    attempt are renewed under the new one.

    Raises:
        DeniedError: no; it has every reason, and its record is committed. The job goes on as it was.
        InvalidRequestError: `not_after` is not later than the present end, or too late.
        NotFoundError: this tenant has no such job.
        StateConflictError: the job was preempted, has ended, or its grant is over.
    """
    now = broker.clock()
    with broker.read() as connection:
        before = _find(connection, tenant=caller.require_tenant(), job_uid=job_uid, lock=False)
    _check_standing(before, "open")
    if before.not_after <= now:
        raise StateConflictError("job", job_uid, state="past the end of its grant", expected="running; requeue it")
    if not_after <= before.not_after:
        raise InvalidRequestError("expire_time", f"must be later than the present end, {before.not_after}")
    grant = replace(
        JobGrant.parse(before.grant),
        grant_id=_grant_id(),
        scheduler=caller.name,
        not_after=_end(broker, not_after, now=now),
    )
    row = replace(before, not_after=grant.not_after)
    return _decide(broker, caller=caller, kind=Kind.JOB_EXTENDED, grant=grant, row=row, before=before, now=now)


def preempt(broker: Broker, *, caller: Principal, job_uid: str, because: str = "JOB_PREEMPTED") -> tuple[JobView, int]:
    """Stop a job until it is requeued; returns it, and how many leases this call revoked.

    Preempting a preempted job revokes what is left of its leases, if anything.

    Raises:
        NotFoundError: this tenant has no such job.
        StateConflictError: it has ended.
        StoreError: it could not be finished. The job may be preempted already; call again.
    """
    now, tenant = broker.clock(), caller.require_tenant()

    def stop(connection: Connection) -> JobRow:
        row = _find(connection, tenant=tenant, job_uid=job_uid, lock=True)
        _check_standing(row, "open", "preempted")
        if row.standing == "preempted":
            return row
        stopped = jobs.preempt(connection, row.grant_id, now=now)
        append(connection, _life_record(connection, Kind.JOB_PREEMPTED, stopped, caller=caller, now=now))
        return stopped

    row = broker.commit(stop)
    revoked = revoke_held(broker, Holding(job=row.grant_id), caller=caller, because=because, now=now)
    return JobView(row, JobGrant.parse(row.grant), 0), revoked


def requeue(
    broker: Broker, *, caller: Principal, job_uid: str, not_after: int, not_before: int | None = None
) -> tuple[Authorization, int]:
    """Stop a job, revoke its leases, and decide whether it may run again; `commit` begins the next attempt.

    Returns the authorization, and how many leases were revoked. What the job may use, where and for whom stays as it
    was; so do its budgets, and what it has spent of them.

    Raises:
        DeniedError: no; it has every reason, and its record is committed. The job stays preempted.
        InvalidRequestError: the times do not fit.
        NotFoundError: this tenant has no such job.
        StateConflictError: it has ended.
        StoreError: it could not be finished. The job may be preempted already; call again.
    """
    now = broker.clock()
    starts, ends = _start(not_before, not_after, now=now), _end(broker, not_after, now=now)
    stopped, revoked = preempt(broker, caller=caller, job_uid=job_uid, because="JOB_REQUEUED")
    before = stopped.row
    grant = replace(stopped.grant, grant_id=_grant_id(), scheduler=caller.name, not_before=starts, not_after=ends)
    row = replace(before, not_before=starts, not_after=ends, attempt=before.attempt + 1, preempted_at=None)
    decided = _decide(broker, caller=caller, kind=Kind.JOB_REQUEUED, grant=grant, row=row, before=before, now=now)
    return decided, revoked


def _decide(
    broker: Broker,
    *,
    caller: Principal,
    kind: Kind,
    grant: JobGrant,
    row: JobRow,
    before: JobRow | None,
    now: int,
) -> Authorization:
    """Ask the release policy about `grant` and sign it.

    Raises:
        DeniedError: no; it has every reason, and its record is committed.
        NotFoundError: no such node or site.
    """
    judged = judge(broker, grant, row, going_on=kind is Kind.JOB_EXTENDED, now=now)
    of_job = job_budgets(row.budgets)
    record = Record.build(
        kind=Kind.JOB_REFUSED if judged.reasons else kind,
        time=now,
        actor=actor(caller),
        tenant=grant.tenant,
        job=grant.job_uid,
        assets=judged.own,
        policy_digest=judged.policies.digest,
        input_digest=sha256(documents.decision_index(appraisal=b"", release=judged.inputs)).hex(),
        result=Result.DENIED if judged.reasons else Result.ALLOWED,
        reasons=tuple(sorted({reason.code for reason in judged.reasons})),
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
            **({"budgets": tuple(f"{name}={limit}" for name, limit in sorted(of_job.items()))} if of_job else {}),
            **({} if before is None else {"attempt": row.attempt, "asked": kind.value}),
            **judged.policies.detail(),
        },
    )
    if judged.reasons:

        def remember(connection: Connection) -> bytes:
            documents.put_decision(connection, appraisal=b"", release=judged.inputs, now=now)
            return append(connection, record).entry_hash

        raise DeniedError(judged.reasons, record_hash=broker.commit(remember))
    signed = sign(grant, broker.keys.grant)
    row = replace(row, grant=signed.grant, signature=signed.signature, signing_key_id=signed.key_id)
    return Authorization(grant, signed, row, before, record, judged.inputs, now)


@dataclass(frozen=True, slots=True)
class Judged:
    """What the release policy says of a job before there is a node.

    Attributes:
        reasons: why not; empty where the job may have its grant.
        own: the assets that it names and that are its tenant's, as records have them.
        inputs: what the policy was asked.
        policies: by which it was decided.
    """

    reasons: tuple[Reason, ...]
    own: tuple[str, ...]
    inputs: tuple[bytes, ...]
    policies: TenantPolicies


def judge(broker: Broker, grant: JobGrant, row: JobRow, *, now: int, going_on: bool = False) -> Judged:
    """Decide whether a job may have `grant`; a job that is `going_on` opens nothing again.

    Raises:
        NotFoundError: no such node or site.
    """
    reasons: list[Reason] = []
    inputs: list[bytes] = []
    of_job = job_budgets(row.budgets)
    policies = broker.policies.of(grant.tenant)
    with broker.read() as connection:
        candidates = _candidates(connection, grant)
        rows = assets.find_all_named(connection, {ref.asset for ref in grant.assets})
        found = assets.find_versions(connection, grant.assets)
        # Another tenant's asset is not there: what is asked of the store from here on must not depend on it either.
        rows = {name: asset for name, asset in rows.items() if asset.tenant == grant.tenant}
        versions = {ref: version for ref, version in found.items() if ref.asset in rows}
        uses = spent(connection, versions, job=row.grant_id)
    granted: dict[str, Constraints] = {}
    for ref in grant.assets:
        asset, version = rows.get(ref.asset), versions.get(ref)
        if asset is None or version is None:
            reasons.append(unknown_asset(ref))
            continue
        document = release_input(
            stage="authorize",
            grant=grant,
            standing="open",
            live_nodes=(),
            asset=asset,
            version=version,
            holders=None,
            budgeted=[
                item
                for item in budget_inputs(ref, version, job=row.grant_id, budgets_of_job=of_job, uses=uses)
                if not going_on or item.name != "opens"
            ],
            reporting=None,
            node=None,
            site=None,
            attestation=None,
            candidate_sites=candidates,
            # A job is asked for ahead of time: what matters is whether it may run once its grant has begun.
            now=max(now, grant.not_before),
        )
        granted[str(ref)] = parsed(version.constraints)
        inputs.append(document)
        decision = policies.release.evaluate_bytes(document)
        reasons += from_denials(decision.deny)
        reasons += merge_obligations(decision.obligations)[1]
    reasons += _conflicts(granted, broker.policies.jurisdictions)
    own = tuple(str(ref) for ref in grant.assets if ref.asset in rows)
    return Judged(ordered(reasons), own, tuple(inputs), policies)


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """How much of one budget a job has left.

    Attributes:
        ref: the asset version.
        name: what is counted (`keybroker.constraints.BUDGETS`).
        scope: over all jobs, as the owner says, or of the job alone.
        limit: the budget.
        spent: how much of it is spent; seconds are charged ahead.
    """

    ref: AssetRef
    name: str
    scope: str
    limit: int
    spent: int


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as its tenant sees it."""

    row: JobRow
    grant: JobGrant
    live_leases: int
    uses: tuple[BudgetUse, ...] = ()


def get(connection: Connection, *, tenant: str, job_uid: str, now: int) -> JobView:
    """Read a job.

    Raises:
        NotFoundError: this tenant has no such job.
    """
    row = _find(connection, tenant=tenant, job_uid=job_uid, lock=False)
    grant = JobGrant.parse(row.grant)
    versions = assets.find_versions(connection, grant.assets)
    uses = spent(connection, versions, job=row.grant_id)
    of_job = job_budgets(row.budgets)
    budgets = tuple(
        BudgetUse(ref, item.name, item.scope, item.limit, item.spent)
        for ref in grant.assets
        if ref in versions
        for item in budget_inputs(ref, versions[ref], job=row.grant_id, budgets_of_job=of_job, uses=uses)
    )
    return JobView(row, grant, leases.count_live(connection, row.grant_id, now=now), budgets)


def end(broker: Broker, *, caller: Principal, job_uid: str) -> tuple[JobView, int]:
    """Close a job for ever; returns it, and how many leases this call revoked. Closing a closed job is no error.

    The job is closed first, from when on no lease of it is granted or renewed; then its leases are revoked, a bounded
    number in each transaction. It returns when none is left.

    Raises:
        NotFoundError: this tenant has no such job.
        StoreError: it could not be finished. The job may be closed already; call again.
    """
    now, tenant = broker.clock(), caller.require_tenant()

    def close(connection: Connection) -> JobRow:
        row = _find(connection, tenant=tenant, job_uid=job_uid, lock=True)
        if row.state is JobState.CLOSED:
            return row
        closed = jobs.close(connection, row.grant_id)
        append(connection, _life_record(connection, Kind.JOB_ENDED, closed, caller=caller, now=now))
        return closed

    row = broker.commit(close)
    revoked = revoke_held(broker, Holding(job=row.grant_id), caller=caller, because="JOB_ENDED", now=now)
    return JobView(row, JobGrant.parse(row.grant), 0), revoked


def _life_record(connection: Connection, kind: Kind, row: JobRow, *, caller: Principal, now: int) -> Record:
    """The record of a job that is stopped, written under its lock: how many leases it leaves to be revoked is exact."""
    grant = JobGrant.parse(row.grant)
    return Record.build(
        kind=kind,
        time=now,
        actor=actor(caller),
        tenant=row.tenant,
        job=row.job_uid,
        assets=tuple(str(ref) for ref in grant.assets),
        result=Result.RECORDED,
        detail={
            "grant": grant.grant_id,
            "attempt": row.attempt,
            "revoked_leases": leases.count_held(connection, Holding(job=row.grant_id)),
        },
    )


def _grant_id() -> str:
    return f"grant-{secrets.token_hex(16)}"


def _check_standing(row: JobRow, *expected: Standing) -> None:
    if row.standing not in expected:
        raise StateConflictError("job", row.job_uid, state=row.standing, expected=" or ".join(expected))


def _budgets(budgets: Mapping[str, int]) -> str:
    for name, limit in budgets.items():
        if name not in BUDGETS:
            raise InvalidRequestError("budgets", f"{name!a:.60} is none of {', '.join(sorted(BUDGETS))}")
        if not 1 <= limit <= MAX_INTEGER:
            raise InvalidRequestError(f"budgets.{name}", f"{limit}: 1 to {MAX_INTEGER}")
    return rfc8785.dumps(dict(budgets)).decode("utf-8")


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
