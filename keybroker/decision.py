"""The release decision: what it rests on, what the policy says for each asset, and whether it still holds at commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from sqlalchemy import Connection

from keybroker.broker import Broker
from keybroker.denial import Reason, from_denials, ordered
from keybroker.errors import DecisionStaleError, NotFoundError
from keybroker.grants import SignedGrant
from keybroker.obligations import merge_obligations
from keybroker.proof import Proof
from keybroker.store import assets, jobs, leases, nodes
from keybroker.store.assets import AssetRow, AssetVersionRow
from keybroker.store.jobs import JobRow
from keybroker.store.nodes import NodeRow
from keybroker.store.schema import AssetState, JobState
from keybroker.store.sites import SiteRow
from keystead.binding import (
    AssetRef,
    JobGrant,
)
from policy.decision import Obligation
from policy.inputs import (
    AssetInput,
    AttestationInput,
    GrantInput,
    JobInput,
    NodeInput,
    ReleaseInput,
    ResidencyInput,
    SiteInput,
)

Stage: TypeAlias = Literal["authorize", "acquire", "renew"]
"""When the release policy is asked."""

MAX_ASSETS: Final = 64
"""Assets in one request."""

DECISIONS: Final = 8
"""How often a decision is taken again because what it rests on changed meanwhile."""

_RESTATED: Final = frozenset({"ATTESTATION_DENIED", "ATTESTATION_STATUS", "DEVICE_SET_MISMATCH"})
"""Denials of the release policy that only sum up what speaks against the node."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a decision rests on."""

    job: JobRow
    live_nodes: tuple[str, ...]
    assets: dict[AssetRef, tuple[AssetRow, AssetVersionRow]]
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
    job_open: bool,
    live_nodes: Sequence[str],
    asset: AssetRow,
    version: int,
    version_active: bool,
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
        ),
        job=JobInput(state="open" if job_open else "closed", live_nodes=tuple(live_nodes)),
        asset=AssetInput(
            asset=asset.asset,
            version=version,
            tenant=asset.tenant,
            kind=asset.kind.value,
            state="active" if asset.state is AssetState.ACTIVE and version_active else "revoked",
            classification=asset.classification,
            purposes=asset.purposes,
            residency=ResidencyInput(allowed=asset.residency_allowed, forbidden=asset.residency_forbidden),
            require_hardware=False,
        ),
        node=node,
        site=None if site is None else site_input(site),
        attestation=attestation,
        candidate_sites=None if candidate_sites is None else tuple(site_input(item) for item in candidate_sites),
    ).to_bytes()


def site_input(site: SiteRow) -> SiteInput:
    """A site as policies see it."""
    return SiteInput(
        site_id=site.site_id, jurisdiction=site.jurisdiction, state=site.state.value, valid_until=site.valid_until
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


def take_snapshot(
    connection: Connection,
    *,
    signed: SignedGrant | None,
    grant: JobGrant,
    refs: Sequence[AssetRef],
    proof: Proof,
    now: int,
    again: bool = False,
) -> Snapshot:
    """What to decide on; `again` reads the node anew, where `proof` was not made in the same transaction."""
    node, site = proof.standing.node, proof.standing.site
    if again and node is not None:
        node, site = nodes.get_with_site(connection, node.node_id)
    job = jobs.get(connection, grant.grant_id)
    if signed is not None and job.grant != signed.grant:
        raise NotFoundError("job", grant.grant_id)
    return Snapshot(
        job=job,
        live_nodes=leases.live_nodes(connection, grant.grant_id, now=now),
        assets=assets.find_with_versions(connection, refs),
        node=node,
        site=site,
    )


def decide(
    broker: Broker,
    *,
    stage: Stage,
    grant: JobGrant,
    refs: Sequence[AssetRef],
    proof: Proof,
    snapshot: Snapshot,
    now: int,
) -> Verdict:
    """The release policy's answers for every asset at `stage`, and what it was asked."""
    reasons: list[Reason] = []
    obligations: list[Obligation] = []
    inputs: list[bytes] = []
    node = snapshot.node
    for ref in refs:
        asset, version = snapshot.assets.get(ref, (None, None))
        if asset is None or version is None or asset.tenant != grant.tenant:
            reasons.append(unknown_asset(ref))
            continue
        document = release_input(
            stage=stage,
            grant=grant,
            job_open=snapshot.job.state is JobState.OPEN,
            live_nodes=snapshot.live_nodes,
            asset=asset,
            version=ref.version,
            version_active=version.state is AssetState.ACTIVE,
            node=None
            if node is None
            else NodeInput(
                node_id=node.node_id,
                state=node.state.value,
                claimed_node_id=proof.claimed_node_id,
                device_set_matches=proof.standing.matches,
            ),
            site=snapshot.site,
            attestation=proof.attestation,
            candidate_sites=None,
            now=now,
        )
        inputs.append(document)
        decision = broker.policies.release.evaluate_bytes(document)
        reasons += from_denials(decision.deny)
        obligations += decision.obligations
    if proof.reasons:
        # What the proof says by itself, and more exactly, is not said twice.
        reasons = [reason for reason in reasons if reason.code not in _RESTATED]
    merged, unknown = merge_obligations(obligations)
    return Verdict(ordered([*reasons, *unknown]), merged, tuple(inputs))


def recheck(connection: Connection, snapshot: Snapshot, *, grant: JobGrant, refs: Sequence[AssetRef], now: int) -> None:
    """Under the job's lock: does everything that the policy was told still hold, and will it until the commit?

    The node and the assets are locked against changes, not against each other's leases: a quarantine or a revocation
    that runs on another replica waits for this commit, and then finds the lease that it has to end.
    """
    job = jobs.get(connection, grant.grant_id, lock=True)
    node = snapshot.node
    if node is None or snapshot.site is None:
        raise DecisionStaleError
    live = set(leases.live_nodes(connection, grant.grant_id, now=now))
    holds = (
        job == snapshot.job
        and len(live | {node.node_id}) <= grant.node_ceiling
        and nodes.get_with_site(connection, node.node_id, share=True) == (node, snapshot.site)
        and assets.find_with_versions(connection, refs, share=True) == snapshot.assets
    )
    if not holds:
        raise DecisionStaleError
