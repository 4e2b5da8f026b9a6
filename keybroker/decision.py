"""The release decision: what it rests on, what the policy says for each asset, and whether it still holds at commit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol, TypeAlias, cast

from sqlalchemy import Connection

from keybroker.broker import Broker
from keybroker.constraints import Areas, parsed
from keybroker.denial import Reason, from_denials, ordered
from keybroker.errors import DecisionStaleError, NotFoundError
from keybroker.grants import SignedGrant
from keybroker.obligations import merge_obligations, report_seconds
from keybroker.proof import Proof
from keybroker.store import assets, budgets, jobs, leases, nodes
from keybroker.store.assets import AssetRow, AssetVersionRow
from keybroker.store.budgets import MeterRow
from keybroker.store.jobs import JobRow, Standing
from keybroker.store.leases import LeaseRow
from keybroker.store.nodes import NodeRow
from keybroker.store.schema import AssetState
from keybroker.store.sites import SiteRow
from keystead.binding import (
    AssetRef,
    JobGrant,
    sha256,
)
from policy.decision import Obligation
from policy.inputs import (
    AreasInput,
    AssetInput,
    AttestationInput,
    BudgetInput,
    BudgetName,
    GrantInput,
    HoldersInput,
    JobInput,
    NodeInput,
    ReleaseInput,
    ReportingInput,
    SiteInput,
)
from policy.layers import TenantLayer

Stage: TypeAlias = Literal["authorize", "plan", "acquire", "renew"]
"""When the release policy is asked; at ``plan`` the answer is only told (`keybroker.placement`)."""

Scope: TypeAlias = Literal["asset", "job"]
"""Who set a budget: the asset's owner, over all jobs, or the scheduler, for the job."""

MAX_ASSETS: Final = 64
"""Assets in one request."""

DECISIONS: Final = 8
"""How often a decision is taken again because what it rests on changed meanwhile."""

_CACHED: Final = 4096
"""Texts of constraints whose part of the policy's input is kept."""

_RESTATED: Final = frozenset({"ATTESTATION_DENIED", "ATTESTATION_STATUS", "DEVICE_SET_MISMATCH"})
"""Denials of the release policy that only sum up what speaks against the node."""


class Appraised(Protocol):
    """What is known of a node that is asked about; `keybroker.proof.Proof` is what one has just proven."""

    @property
    def claimed_node_id(self) -> str:
        """What the node says its name is."""

    @property
    def matches(self) -> bool:
        """The proven identities are exactly the enrolled set of the node."""

    @property
    def attestation(self) -> AttestationInput | None:
        """What the appraisal decided, as the release policy sees it; None where there is none."""

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Everything that speaks against the node by itself."""

    @property
    def document(self) -> bytes:
        """The appraisal policy's canonical input; empty where it is not at hand."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a decision rests on.

    Attributes:
        job: the job.
        superseded: the grant that was presented is one of a former attempt.
        live_nodes: the nodes that hold a live lease of the job.
        assets: the assets that are there, each with its version.
        holders: for each asset with a ceiling, its live leases with their nodes.
        uses: the counters of each asset version, over all jobs and of this one, where one is budgeted.
        meter: of the lease that is to be renewed; None where its use is not counted.
        renewed_until: when the lease that is to be renewed ends unless it is; None for a new one.
        seen: the latest instant that was seen (`keybroker.store.budgets.latest`), or the decision's own.
        node: the enrolled node.
        site: where it stands.
    """

    job: JobRow
    superseded: bool
    live_nodes: tuple[str, ...]
    assets: dict[AssetRef, tuple[AssetRow, AssetVersionRow]]
    holders: dict[str, dict[str, str]]
    uses: dict[tuple[AssetRef, str], dict[str, int]]
    meter: MeterRow | None
    renewed_until: int | None
    seen: int
    node: NodeRow | None
    site: SiteRow | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The release policy's answers for all assets together."""

    reasons: tuple[Reason, ...]
    obligations: tuple[Obligation, ...]
    documents: tuple[bytes, ...] = field(repr=False)


def release_input(
    *,
    stage: Stage,
    grant: JobGrant,
    standing: Standing,
    live_nodes: Sequence[str],
    asset: AssetRow,
    version: AssetVersionRow,
    holders: HoldersInput | None,
    budgeted: Sequence[BudgetInput],
    reporting: ReportingInput | None,
    node: NodeInput | None,
    site: SiteRow | None,
    attestation: AttestationInput | None,
    candidate_sites: Sequence[SiteRow] | None,
    now: int,
) -> bytes:
    """The release policy's canonical input for one asset."""
    return ReleaseInput(
        stage=stage,
        now=now,
        grant=GrantInput(
            grant_id=grant.grant_id,
            tenant=grant.tenant,
            job_uid=grant.job_uid,
            scheduler=grant.scheduler,
            assets=tuple(str(ref) for ref in grant.assets),
            purposes=grant.purposes,
            nodes=grant.nodes,
            sites=grant.sites,
            node_ceiling=grant.node_ceiling,
            not_before=grant.not_before,
            not_after=grant.not_after,
            project=grant.project,
            user=grant.user,
            stage=grant.stage,
            image=grant.image,
            network=grant.network,
        ),
        job=JobInput(state=standing, live_nodes=tuple(live_nodes)),
        asset=AssetInput(
            asset=asset.asset,
            version=version.version,
            tenant=asset.tenant,
            kind=asset.kind.value,
            state="active" if AssetState.ACTIVE is asset.state is version.state else "revoked",
            **_constraint_members(version.constraints),
        ),
        holders=holders,
        budgets=tuple(budgeted),
        reporting=reporting,
        node=node,
        site=None if site is None else site_input(site),
        attestation=attestation,
        candidate_sites=None if candidate_sites is None else tuple(site_input(item) for item in candidate_sites),
    ).to_bytes()


@lru_cache(maxsize=_CACHED)
def _constraint_members(text: str) -> Mapping[str, Any]:
    """What constraints say as members of `AssetInput`, made once for each text."""
    constraints = parsed(text)

    def names(value: frozenset[str] | None) -> tuple[str, ...] | None:
        return None if value is None else tuple(sorted(value))

    def areas(value: Areas) -> AreasInput:
        return AreasInput(allowed=value.clauses(), forbidden=tuple(sorted(value.forbidden)))

    return MappingProxyType(
        {
            "classification": constraints.classification,
            # No purpose named is none permitted: an asset cannot be registered so.
            "purposes": names(constraints.purposes) or (),
            "residency": areas(constraints.residency),
            "exposure": areas(constraints.exposure),
            "sites": names(constraints.sites),
            "retain_until": constraints.retain_until,
            "assurance": constraints.assurance.label,
            "node_ceiling": constraints.node_ceiling,
            "copy_ceiling": constraints.copy_ceiling,
            "projects": names(constraints.projects),
            "users": names(constraints.users),
            "stages": names(constraints.stages),
            "images": names(constraints.images),
            "networks": names(constraints.networks),
            "obligations": {code: dict(params) for code, params in constraints.obligations.items()},
        }
    )


def site_input(site: SiteRow) -> SiteInput:
    """A site as policies see it."""
    return SiteInput(
        site_id=site.site_id,
        jurisdiction=site.jurisdiction,
        exposures=site.exposures,
        certifications=site.certifications,
        network_zone=site.network_zone,
        state=site.state.value,
        valid_from=site.valid_from,
        valid_until=site.valid_until,
    )


def unknown_asset(ref: AssetRef) -> Reason:
    """The reason for an asset that is not there, or is another tenant's: the two look alike."""
    return Reason(
        "ASSET_NOT_FOUND",
        "assets",
        "an asset version of the job's tenant",
        str(ref),
        "The asset or this version of it does not exist",
        "check the name and the version; the owner adds versions",
    )


@lru_cache(maxsize=_CACHED)
def job_budgets(text: str) -> Mapping[str, int]:
    """The budgets that a job stores (`JobRow.budgets`)."""
    return MappingProxyType(json.loads(text))


def limits(version: AssetVersionRow, budgets_of_job: Mapping[str, int]) -> list[tuple[BudgetName, Scope, int]]:
    """Every budget that a job's use of an asset version is held to: its name, who set it, and how much."""
    named: list[tuple[Scope, Mapping[str, int]]] = [
        ("asset", parsed(version.constraints).budgets),
        ("job", budgets_of_job),
    ]
    return [(cast(BudgetName, name), scope, limit) for scope, found in named for name, limit in sorted(found.items())]


def budget_inputs(
    ref: AssetRef,
    version: AssetVersionRow,
    *,
    job: str,
    budgets_of_job: Mapping[str, int],
    uses: Mapping[tuple[AssetRef, str], Mapping[str, int]],
    unused: int = 0,
) -> list[BudgetInput]:
    """The budgets of one asset version as the policy sees them.

    Args:
        ref: the asset version.
        version: its row.
        job: the job's key.
        budgets_of_job: what the job may use.
        uses: the counters (`keybroker.store.budgets.spent`).
        unused: seconds that the lease to be renewed was charged for and has not used.
    """
    found = []
    for name, scope, limit in limits(version, budgets_of_job):
        used = uses.get((ref, budgets.ALL_JOBS if scope == "asset" else job), {}).get(name, 0)
        spent = max(0, used - unused) if name == "key_seconds" else used
        found.append(BudgetInput(name=name, scope=scope, limit=limit, spent=spent))
    return found


def _unused(snapshot: Snapshot) -> int:
    if snapshot.meter is None or snapshot.renewed_until is None:
        return 0
    return max(0, snapshot.renewed_until - max(snapshot.seen, snapshot.meter.seen_at))


def _reporting(snapshot: Snapshot) -> ReportingInput | None:
    meter = snapshot.meter
    if meter is None or meter.report_every is None:
        return None
    return ReportingInput(every=meter.report_every, age=max(0, max(snapshot.seen, meter.seen_at) - meter.reported_at))


def take_snapshot(
    connection: Connection,
    *,
    signed: SignedGrant | None,
    grant: JobGrant,
    refs: Sequence[AssetRef],
    proof: Proof,
    now: int,
    again: bool = False,
    lease: LeaseRow | None = None,
) -> Snapshot:
    """What to decide on; `again` reads the node anew, where `proof` was not made in the same transaction.

    Raises:
        NotFoundError: no job has this grant.
    """
    node, site = proof.standing.node, proof.standing.site
    if again and node is not None:
        node, site = nodes.get_with_site(connection, node.node_id)
    issued = jobs.find_issued(connection, grant.grant_id)
    if issued is None or (signed is not None and issued.digest != sha256(signed.grant)):
        raise NotFoundError("job", grant.grant_id)
    return snapshot_for(
        connection,
        jobs.get(connection, issued.job),
        attempt=issued.attempt,
        refs=refs,
        node=node,
        site=site,
        now=now,
        lease=lease,
    )


def snapshot_for(
    connection: Connection,
    job: JobRow,
    *,
    attempt: int,
    refs: Sequence[AssetRef],
    node: NodeRow | None,
    site: SiteRow | None,
    now: int,
    lease: LeaseRow | None = None,
) -> Snapshot:
    """What to decide on about a grant of `job`'s `attempt` and a node of `site`; neither need be there yet."""
    found = assets.find_with_versions(connection, refs)
    # Another tenant's asset is not there: what is asked of the store from here on must not depend on it either.
    found = {ref: pair for ref, pair in found.items() if pair[0].tenant == job.tenant}
    of_job = job_budgets(job.budgets)
    budgeted = [ref for ref, (_, version) in found.items() if limits(version, of_job)]
    return Snapshot(
        job=job,
        superseded=attempt != job.attempt,
        live_nodes=leases.live_nodes(connection, job.grant_id, now=now),
        assets=found,
        holders={name: leases.holders(connection, name, now=now) for name in _limited(found)},
        uses=budgets.spent(connection, budgeted, job=job.grant_id) if budgeted else {},
        meter=None if lease is None else budgets.meter(connection, lease.lease_id),
        renewed_until=None if lease is None else lease.expires_at,
        seen=now if lease is None else max(now, budgets.latest(connection)),
        node=node,
        site=site,
    )


def decide(
    broker: Broker,
    *,
    stage: Stage,
    grant: JobGrant,
    refs: Sequence[AssetRef],
    proof: Appraised,
    snapshot: Snapshot,
    now: int,
    lease_id: str = "",
) -> Verdict:
    """The release policy's answers for every asset at `stage`, and what it was asked; `lease_id` is to be renewed."""
    reasons: list[Reason] = [_superseded(snapshot)] if snapshot.superseded else []
    obligations: list[Obligation] = []
    inputs: list[bytes] = []
    node = snapshot.node
    of_job = job_budgets(snapshot.job.budgets)
    policies = broker.policies.of(grant.tenant)
    for ref in refs:
        asset, version = snapshot.assets.get(ref, (None, None))
        if asset is None or version is None or asset.tenant != grant.tenant:
            reasons.append(unknown_asset(ref))
            continue
        document = release_input(
            stage=stage,
            grant=grant,
            standing=snapshot.job.standing,
            live_nodes=snapshot.live_nodes,
            asset=asset,
            version=version,
            holders=None
            if node is None or ref.asset not in snapshot.holders
            else _with_this(snapshot.holders[ref.asset], node_id=node.node_id, lease_id=lease_id),
            budgeted=budget_inputs(
                ref,
                version,
                job=snapshot.job.grant_id,
                budgets_of_job=of_job,
                uses=snapshot.uses,
                unused=_unused(snapshot),
            ),
            reporting=_reporting(snapshot),
            node=None
            if node is None
            else NodeInput(
                node_id=node.node_id,
                state=node.state.value,
                custody=node.custody.value,
                claimed_node_id=proof.claimed_node_id,
                device_set_matches=proof.matches,
            ),
            site=snapshot.site,
            attestation=proof.attestation,
            candidate_sites=None,
            now=now,
        )
        inputs.append(document)
        decision = policies.release.evaluate_bytes(document)
        reasons += from_denials(decision.deny)
        obligations += decision.obligations
    reasons += _tenant_appraisal(policies.appraisal, proof)
    if proof.reasons:
        # What the proof says by itself, and more exactly, is not said twice.
        reasons = [reason for reason in reasons if reason.code not in _RESTATED]
    merged, unknown = merge_obligations(obligations)
    return Verdict(ordered([*reasons, *unknown]), merged, tuple(inputs))


def _superseded(snapshot: Snapshot) -> Reason:
    return Reason(
        "GRANT_SUPERSEDED",
        "grant",
        f"a grant of attempt {snapshot.job.attempt}",
        "one of a former attempt",
        "The job was requeued since: grants of former attempts are worth nothing",
        "use the grant that RequeueJob returned",
    )


def _tenant_appraisal(layer: TenantLayer | None, proof: Appraised) -> list[Reason]:
    """What a tenant's own appraisal policy holds against the node besides the factory's."""
    if layer is None or proof.attestation is None:
        return []
    if not proof.document:
        return [
            Reason(
                "TENANT_APPRAISAL_NEEDS_EVIDENCE",
                "attestation",
                "evidence, or an appraisal whose input is at hand",
                "neither",
                "A tenant's own appraisal policy judges evidence, not what the factory's policy made of it",
                "acquire the lease with evidence",
            )
        ]
    # The pack may have begun as a copy of the factory's, whose reasons are in the proof: they are said once.
    said = {(reason.code, reason.field, reason.expected, reason.actual) for reason in proof.reasons}
    found = from_denials(layer.decide(proof.document).deny)
    return [reason for reason in found if (reason.code, reason.field, reason.expected, reason.actual) not in said]


def _limited(found: Mapping[AssetRef, tuple[AssetRow, AssetVersionRow]]) -> list[str]:
    """The assets for which a ceiling over all jobs is asked, sorted."""
    return sorted({ref.asset for ref, (_, version) in found.items() if _ceilings(version) != (None, None)})


def _ceilings(version: AssetVersionRow) -> tuple[int | None, int | None]:
    constraints = parsed(version.constraints)
    return constraints.node_ceiling, constraints.copy_ceiling


def _counted(snapshot: Snapshot) -> bool:
    """Whether something is counted over all jobs, for which the assets must be locked."""
    return bool(snapshot.holders) or any(parsed(version.constraints).budgets for _, version in snapshot.assets.values())


def _with_this(holders: Mapping[str, str], *, node_id: str, lease_id: str) -> HoldersInput:
    """How many there would be with a lease of `node_id`: a new one, or the renewed `lease_id`, which counts once."""
    return HoldersInput(nodes=len({*holders.values(), node_id}), leases=len({*holders, lease_id}))


def _ceilings_hold(connection: Connection, snapshot: Snapshot, *, node_id: str, lease_id: str, now: int) -> bool:
    """Under the assets' locks: is there still room for this lease among those of all jobs?"""
    counted = {
        name: _with_this(leases.holders(connection, name, now=now), node_id=node_id, lease_id=lease_id)
        for name in snapshot.holders
    }
    for ref, (_, version) in snapshot.assets.items():
        nodes_most, leases_most = _ceilings(version)
        if nodes_most is not None and counted[ref.asset].nodes > nodes_most:
            return False
        if leases_most is not None and counted[ref.asset].leases > leases_most:
            return False
    return True


def _budgets_hold(connection: Connection, snapshot: Snapshot, *, seconds: int, unused: int) -> bool:
    """Under the locks of job and assets: is there still as much left of every budget as this lease needs?"""
    of_job = job_budgets(snapshot.job.budgets)
    refs = [ref for ref, (_, version) in snapshot.assets.items() if limits(version, of_job)]
    if not refs:
        return True
    uses = budgets.spent(connection, refs, job=snapshot.job.grant_id)
    needed = {"key_seconds": seconds} if snapshot.renewed_until is not None else {"key_seconds": seconds, "opens": 1}
    return all(
        item.spent + needed[item.name] <= item.limit
        for ref in refs
        for item in budget_inputs(
            ref,
            snapshot.assets[ref][1],
            job=snapshot.job.grant_id,
            budgets_of_job=of_job,
            uses=uses,
            unused=unused,
        )
        if item.name in needed
    )


def charge(
    connection: Connection,
    snapshot: Snapshot,
    *,
    lease_id: str,
    refs: Sequence[AssetRef],
    obligations: Sequence[Obligation],
    seconds: int,
    now: int,
) -> None:
    """Count a lease that is granted or renewed, where a budget asks; part of its unit of work.

    `seconds` are those that `recheck` found it has to be charged for.
    """
    every = report_seconds(obligations)
    if not snapshot.uses and snapshot.meter is None and every is None:
        return
    budgets.charge(
        connection,
        lease_id=lease_id,
        job=snapshot.job.grant_id,
        refs=refs,
        seconds=seconds,
        opens=1 if snapshot.renewed_until is None else 0,
        report_every=every,
        now=now,
    )


def recheck(
    connection: Connection,
    snapshot: Snapshot,
    *,
    grant: JobGrant,
    refs: Sequence[AssetRef],
    expires_at: int,
    now: int,
    lease_id: str = "",
) -> int:
    """Under the job's lock: does everything that the policy was told still hold, and will it until the commit?

    The node and the assets are locked against changes, not against each other's leases: a quarantine or a revocation
    that runs on another replica waits for this commit, and then finds the lease that it has to end. Where an asset has
    a ceiling or a budget over all jobs, it is counted under a lock of its own.

    Returns:
        The seconds that a lease until `expires_at` has to be charged for, beyond what it was charged for before.

    Raises:
        DecisionStaleError: something changed; decide again.
    """
    job = jobs.get(connection, snapshot.job.grant_id, lock=True)
    node = snapshot.node
    if node is None or snapshot.site is None:
        raise DecisionStaleError
    live = set(leases.live_nodes(connection, job.grant_id, now=now))
    unused = 0
    if snapshot.renewed_until is not None:
        # The lease before its meter, as whoever ends it or reports its use does.
        leases.get(connection, lease_id, lock=True)
        unused = budgets.unused(connection, lease_id, expires_at=snapshot.renewed_until, now=now)
    holds = (
        job == snapshot.job
        and len(live | {node.node_id}) <= grant.node_ceiling
        and nodes.get_with_site(connection, node.node_id, share=True) == (node, snapshot.site)
        and assets.find_with_versions(connection, refs, share=True, lock=_counted(snapshot)) == snapshot.assets
        and _ceilings_hold(connection, snapshot, node_id=node.node_id, lease_id=lease_id, now=now)
        and _budgets_hold(connection, snapshot, seconds=expires_at - now, unused=unused)
    )
    if not holds:
        raise DecisionStaleError
    return expires_at - now - unused


def reconsidered(document: bytes, *, constraints: str, holders: HoldersInput | None) -> bytes:
    """The input of an earlier decision as it would have been under other `constraints` (canonical JSON).

    Nothing else changes, the time included, so that a denial is the constraints' alone; what depends on the present
    time is for the caller to compare.
    """
    before = ReleaseInput.model_validate_json(document)
    asset = before.asset.model_copy(update=dict(_constraint_members(constraints)))
    return before.model_copy(update={"asset": asset, "holders": holders}).to_bytes()
