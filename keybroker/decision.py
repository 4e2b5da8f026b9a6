"""The release decision: what it rests on, what the policy says for each asset, and whether it still holds at commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import Connection

from keybroker.broker import Broker
from keybroker.constraints import Areas, parsed
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
    AreasInput,
    AssetInput,
    AttestationInput,
    GrantInput,
    HoldersInput,
    JobInput,
    NodeInput,
    ReleaseInput,
    SiteInput,
)

Stage: TypeAlias = Literal["authorize", "acquire", "renew"]
"""When the release policy is asked."""

MAX_ASSETS: Final = 64
"""Assets in one request."""

DECISIONS: Final = 8
"""How often a decision is taken again because what it rests on changed meanwhile."""

_CACHED: Final = 4096
"""Texts of constraints whose part of the policy's input is kept."""

_RESTATED: Final = frozenset({"ATTESTATION_DENIED", "ATTESTATION_STATUS", "DEVICE_SET_MISMATCH"})
"""Denials of the release policy that only sum up what speaks against the node."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a decision rests on; `holders` has, for each asset with a ceiling, its live leases with their nodes."""

    job: JobRow
    live_nodes: tuple[str, ...]
    assets: dict[AssetRef, tuple[AssetRow, AssetVersionRow]]
    holders: dict[str, dict[str, str]]
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
    version: AssetVersionRow,
    holders: HoldersInput | None,
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
        job=JobInput(state="open" if job_open else "closed", live_nodes=tuple(live_nodes)),
        asset=AssetInput(
            asset=asset.asset,
            version=version.version,
            tenant=asset.tenant,
            kind=asset.kind.value,
            state="active" if AssetState.ACTIVE is asset.state is version.state else "revoked",
            **_constraint_members(version.constraints),
        ),
        holders=holders,
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
    found = assets.find_with_versions(connection, refs)
    return Snapshot(
        job=job,
        live_nodes=leases.live_nodes(connection, grant.grant_id, now=now),
        assets=found,
        holders={name: leases.holders(connection, name, now=now) for name in _limited(found)},
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
    lease_id: str = "",
) -> Verdict:
    """The release policy's answers for every asset at `stage`, and what it was asked; `lease_id` is to be renewed."""
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
            version=version,
            holders=None
            if node is None or ref.asset not in snapshot.holders
            else _with_this(snapshot.holders[ref.asset], node_id=node.node_id, lease_id=lease_id),
            node=None
            if node is None
            else NodeInput(
                node_id=node.node_id,
                state=node.state.value,
                custody=node.custody.value,
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


def _limited(found: Mapping[AssetRef, tuple[AssetRow, AssetVersionRow]]) -> list[str]:
    """The assets for which a ceiling over all jobs is asked, sorted."""
    return sorted({ref.asset for ref, (_, version) in found.items() if _ceilings(version) != (None, None)})


def _ceilings(version: AssetVersionRow) -> tuple[int | None, int | None]:
    constraints = parsed(version.constraints)
    return constraints.node_ceiling, constraints.copy_ceiling


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


def recheck(
    connection: Connection,
    snapshot: Snapshot,
    *,
    grant: JobGrant,
    refs: Sequence[AssetRef],
    now: int,
    lease_id: str = "",
) -> None:
    """Under the job's lock: does everything that the policy was told still hold, and will it until the commit?

    The node and the assets are locked against changes, not against each other's leases: a quarantine or a revocation
    that runs on another replica waits for this commit, and then finds the lease that it has to end. Where an asset has
    a ceiling over all jobs, its leases are counted under a lock of its own.
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
        and assets.find_with_versions(connection, refs, share=True, lock=bool(snapshot.holders)) == snapshot.assets
        and _ceilings_hold(connection, snapshot, node_id=node.node_id, lease_id=lease_id, now=now)
    )
    if not holds:
        raise DecisionStaleError


def reconsidered(document: bytes, *, constraints: str, holders: HoldersInput | None) -> bytes:
    """The input of an earlier decision as it would have been under other `constraints` (canonical JSON).

    Nothing else changes, the time included, so that a denial is the constraints' alone; what depends on the present
    time is for the caller to compare.
    """
    before = ReleaseInput.model_validate_json(document)
    asset = before.asset.model_copy(update=dict(_constraint_members(constraints)))
    return before.model_copy(update={"asset": asset, "holders": holders}).to_bytes()
