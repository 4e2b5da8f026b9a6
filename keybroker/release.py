"""The one path for a key out of the broker.

    grant + evidence → verify → resolve the node → decide → ONE transaction (lease, nonce, record) → wrap

Nothing is unwrapped before the transaction is on stable storage. What the policy was told is checked again inside the
transaction; where it no longer holds, the decision is taken again on what holds now.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import rfc8785
from sqlalchemy import Connection

from attestation.composite import NodeEvidence
from audit.log import append
from audit.receipt import Receipt
from audit.records import Kind, Record, Result
from keybroker import challenge, requests
from keybroker.appraisal import Proof, appraise
from keybroker.broker import Broker, actor
from keybroker.denial import DeniedError, Reason, from_denials, ordered
from keybroker.errors import InvalidRequestError, NonceSpentError, NotFoundError, StateConflictError
from keybroker.grants import SignedGrant, open_grant
from keybroker.passport import Passport, present
from keybroker.principals import Principal
from keybroker.store import assets, documents, jobs, leases, nodes
from keybroker.store.assets import AssetRow, AssetVersionRow
from keybroker.store.jobs import JobRow
from keybroker.store.leases import LeaseRow, RenewalRow
from keybroker.store.nodes import NodeRow
from keybroker.store.schema import AssetState, JobState, LeaseState
from keybroker.store.sites import SiteRow
from keystead.binding import (
    AssetRef,
    JobGrant,
    asset_list_digest,
    grant_digest,
    hpke_info,
    hpke_seal,
    sha256,
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

MAX_ASSETS: Final = 64
"""Assets in one request."""

DECISIONS: Final = 8
"""How often a decision is taken again because what it rests on changed meanwhile."""

LEASE_CEILING: Final = "lease_ceiling"
RE_ATTEST: Final = "re_attest"
ZEROISE_ON_END: Final = "zeroise_on_end"
_SECONDS: Final = frozenset({LEASE_CEILING, RE_ATTEST})
_KNOWN: Final = _SECONDS | {ZEROISE_ON_END}

_RESTATED: Final = frozenset({"ATTESTATION_DENIED", "ATTESTATION_STATUS", "DEVICE_SET_MISMATCH"})
"""Denials of the release policy that only sum up what speaks against the node."""


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key, HPKE-wrapped to the attested key."""

    ref: AssetRef
    key_id: str
    ciphertext: bytes
    manifest_digest: bytes


@dataclass(frozen=True, slots=True)
class Granted:
    """A lease as it stands, with what a node needs to use it."""

    lease: LeaseRow
    obligations: tuple[Obligation, ...]
    attestation_result: str
    receipt: Receipt
    next_nonce: bytes
    keys: tuple[WrappedKey, ...] = ()


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What a decision rests on."""

    job: JobRow
    live_nodes: tuple[str, ...]
    assets: dict[AssetRef, tuple[AssetRow, AssetVersionRow]]
    node: NodeRow | None
    site: SiteRow | None


@dataclass(frozen=True, slots=True)
class _Verdict:
    """The release policy's answers for all assets together."""

    reasons: tuple[Reason, ...]
    obligations: tuple[Obligation, ...]
    documents: tuple[bytes, ...] = field(repr=False)


class _StaleError(Exception):
    """What the decision rests on changed before it could be committed."""


def acquire(
    broker: Broker,
    *,
    signed: SignedGrant,
    refs: Sequence[AssetRef],
    evidence: NodeEvidence | None,
    runtime_data: bytes,
    passport: Passport | None,
    caller: Principal,
) -> Granted:
    """Release data keys for a granted job to an attested node, on a lease.

    Args:
        broker: the running broker.
        signed: the job grant as the scheduler got it.
        refs: the asset versions to open.
        evidence: of the node; or None where there is a passport.
        runtime_data: what the CPU evidence vouches for.
        passport: an Attestation Result instead of evidence.
        caller: whose certificate made the call; transport only.

    Raises:
        DeniedError: no; it has every reason.
        InvalidRequestError, GrantInvalidError, AttestationError: the request cannot be judged.
        StoreError: it could not be committed; nothing was released.
    """
    now = broker.clock()
    wanted = _checked(refs)
    grant = open_grant(
        signed, key_id=broker.keys.grant.key_id, public_key=broker.keys.grant.public_key, broker=broker.name
    )
    digest = grant_digest(signed.grant)
    with broker.read() as connection:
        if passport is not None:
            proof = present(
                broker, connection, passport=passport, grant=digest, assets=asset_list_digest(wanted), now=now
            )
        elif evidence is not None:
            proof = appraise(broker, connection, evidence=evidence, runtime_data=runtime_data, grant=digest, now=now)
        else:
            raise InvalidRequestError("proof", "neither evidence nor passport")
        repeated = _repeated(connection, proof, now=now)
        snapshot = None
        if repeated is None:
            snapshot = _snapshot(connection, signed=signed, grant=grant, refs=wanted, proof=proof, now=now)
    reasons = [*proof.reasons, *_scope_reasons(proof, assets=asset_list_digest(wanted), lease_id="")]
    if repeated is not None:
        lease, because = repeated
        if because is None and not reasons:
            return _answer(broker, lease, versions={})
        reasons += [] if because is None else [because]
    for _ in range(DECISIONS):
        if snapshot is None:
            with broker.read() as connection:
                snapshot = _snapshot(
                    connection, signed=signed, grant=grant, refs=wanted, proof=proof, now=now, again=True
                )
        verdict = _decide(broker, stage="acquire", grant=grant, refs=wanted, proof=proof, snapshot=snapshot, now=now)
        refused = ordered([*reasons, *verdict.reasons])
        if refused:
            break
        try:
            lease = _commit_lease(
                broker,
                grant=grant,
                digest=digest,
                refs=wanted,
                proof=proof,
                snapshot=snapshot,
                verdict=verdict,
                caller=caller,
                now=now,
            )
        except _StaleError:
            snapshot = None
            continue
        except NonceSpentError as error:
            refused = (_spent_reason(error),)
            break
        return _answer(broker, lease, versions={ref: version for ref, (_, version) in snapshot.assets.items()})
    else:
        raise StateConflictError("job", grant.job_uid, state="changing", expected="at rest for a moment")
    raise _denied(
        broker,
        kind=Kind.LEASE_REFUSED,
        grant=grant,
        refs=wanted,
        proof=proof,
        verdict=verdict,
        reasons=refused,
        lease_id=None,
        caller=caller,
        now=now,
    )


def renew(broker: Broker, *, lease_id: str, evidence: NodeEvidence, runtime_data: bytes, caller: Principal) -> Granted:
    """Extend a live lease on fresh evidence of the same node with the same keys.

    Raises:
        DeniedError: no; it has every reason.
        NotFoundError: no such lease.
        InvalidRequestError, AttestationError: the request cannot be judged.
        StoreError: it could not be committed; the lease ends when it did before.
    """
    now = broker.clock()
    requests.identifier(lease_id, "lease_id")
    for _ in range(DECISIONS):
        with broker.read() as connection:
            lease = leases.get(connection, lease_id)
            job = jobs.get(connection, lease.grant_id)
            grant = JobGrant.parse(job.grant)
            proof = appraise(
                broker, connection, evidence=evidence, runtime_data=runtime_data, grant=grant_digest(job.grant), now=now
            )
            refs = tuple(AssetRef.parse(text) for text in lease.assets)
            repeated = _repeated_renewal(connection, proof, lease=lease)
            snapshot = _snapshot(connection, signed=None, grant=grant, refs=refs, proof=proof, now=now)
        reasons = [
            *proof.reasons,
            *_scope_reasons(proof, assets=asset_list_digest(refs), lease_id=lease_id),
            *_lease_reasons(proof, lease=lease, now=now),
        ]
        if isinstance(repeated, RenewalRow) and not reasons:
            return _renewed(broker, lease, repeated)
        if isinstance(repeated, Reason):
            reasons.append(repeated)
        verdict = _decide(broker, stage="renew", grant=grant, refs=refs, proof=proof, snapshot=snapshot, now=now)
        refused = ordered([*reasons, *verdict.reasons])
        if refused:
            break
        try:
            renewal, lease = _commit_renewal(
                broker,
                lease=lease,
                grant=grant,
                refs=refs,
                proof=proof,
                snapshot=snapshot,
                verdict=verdict,
                caller=caller,
                now=now,
            )
        except (_StaleError, StateConflictError):
            continue
        except NonceSpentError as error:
            refused = (_spent_reason(error),)
            break
        return _renewed(broker, lease, renewal)
    else:
        raise StateConflictError("lease", lease_id, state="changing", expected="at rest for a moment")
    raise _denied(
        broker,
        kind=Kind.LEASE_RENEWAL_REFUSED,
        grant=grant,
        refs=refs,
        proof=proof,
        verdict=verdict,
        reasons=refused,
        lease_id=lease_id,
        caller=caller,
        now=now,
    )


def release_input(
    *,
    stage: str,
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
        stage=stage,  # type: ignore[arg-type]  # the model checks it
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


def _checked(refs: Sequence[AssetRef]) -> tuple[AssetRef, ...]:
    if not 1 <= len(refs) <= MAX_ASSETS:
        raise InvalidRequestError("assets", f"{len(refs)} assets, 1 to {MAX_ASSETS} can be asked for at once")
    if len(set(refs)) != len(refs):
        raise InvalidRequestError("assets", "an asset is there twice")
    return tuple(sorted(refs))


def _scope_reasons(proof: Proof, *, assets: bytes, lease_id: str) -> list[Reason]:
    reasons = []
    if proof.assets != assets:
        reasons.append(
            Reason(
                "ASSET_LIST_MISMATCH",
                "runtime_data.assets",
                assets.hex(),
                proof.assets.hex(),
                "Evidence must be made for the assets it is presented for",
                "collect fresh evidence for this list of assets",
            )
        )
    if proof.lease_id != lease_id:
        reasons.append(
            Reason(
                "LEASE_MISMATCH",
                "runtime_data.lease_id",
                lease_id or "none",
                proof.lease_id or "none",
                "Evidence must be made for the lease it is presented for",
                "collect fresh evidence for this call",
            )
        )
    return reasons


def _lease_reasons(proof: Proof, *, lease: LeaseRow, now: int) -> list[Reason]:
    reasons = []
    if lease.state is not LeaseState.LIVE or lease.expires_at <= now:
        reasons.append(_not_live(lease))
    if (proof.hpke_key, proof.signing_key) != (lease.hpke_key, lease.signing_key):
        reasons.append(
            Reason(
                "KEY_MISMATCH",
                "runtime_data.hpke_key",
                "the keys that the lease was granted to",
                "others",
                "A lease is renewed by the keys it was granted to",
                "acquire a new lease",
            )
        )
    node = proof.standing.node
    if node is None or node.node_id != lease.node_id:
        reasons.append(
            Reason(
                "NODE_MISMATCH",
                "lease.node_id",
                lease.node_id,
                "no enrolled node" if node is None else node.node_id,
                "A lease is renewed on the node it was granted to",
                "acquire a new lease on this node",
            )
        )
    return reasons


def _not_live(lease: LeaseRow) -> Reason:
    state = lease.state.value if lease.state is not LeaseState.LIVE else "past its end"
    return Reason(
        "LEASE_NOT_LIVE",
        "lease",
        "live",
        state,
        "A lease that has ended gives no keys",
        "collect fresh evidence with a new nonce and acquire a new lease",
    )


def _spent_reason(error: NonceSpentError) -> Reason:
    return Reason(
        error.code,
        "runtime_data.nonce",
        "a nonce that this node has not used",
        "used before, with other evidence",
        "A nonce serves a node once",
        "ask GetChallenge for a nonce and collect fresh evidence",
    )


def _repeated(connection: Connection, proof: Proof, *, now: int) -> tuple[LeaseRow, Reason | None] | None:
    """The lease that this nonce was used for, and why it cannot be given again, if it cannot."""
    if proof.standing.node is None:
        return None
    spent = leases.find_spent(connection, nonce=proof.nonce, node_id=proof.standing.node.node_id)
    if spent is None:
        return None
    lease = leases.get(connection, spent.lease_id)
    if spent.transcript != proof.transcript or lease.nonce != proof.nonce:
        return lease, _spent_reason(
            NonceSpentError(
                nonce=proof.nonce, node_id=spent.node_id, lease_id=spent.lease_id, transcript=spent.transcript
            )
        )
    if lease.state is not LeaseState.LIVE or lease.expires_at <= now:
        return lease, _not_live(lease)
    return lease, None


def _repeated_renewal(connection: Connection, proof: Proof, *, lease: LeaseRow) -> RenewalRow | Reason | None:
    if proof.standing.node is None:
        return None
    node_id = proof.standing.node.node_id
    spent = leases.find_spent(connection, nonce=proof.nonce, node_id=node_id)
    if spent is None:
        return None
    renewal = leases.find_renewal(connection, nonce=proof.nonce, node_id=node_id)
    if renewal is None or renewal.lease_id != lease.lease_id or renewal.transcript != proof.transcript:
        return _spent_reason(
            NonceSpentError(nonce=proof.nonce, node_id=node_id, lease_id=spent.lease_id, transcript=spent.transcript)
        )
    return renewal


def _snapshot(
    connection: Connection,
    *,
    signed: SignedGrant | None,
    grant: JobGrant,
    refs: Sequence[AssetRef],
    proof: Proof,
    now: int,
    again: bool = False,
) -> _Snapshot:
    """What to decide on; `again` reads the node anew, where `proof` was not made in the same transaction."""
    node, site = proof.standing.node, proof.standing.site
    if again and node is not None:
        node, site = nodes.get_with_site(connection, node.node_id)
    job = jobs.get(connection, grant.grant_id)
    if signed is not None and job.grant != signed.grant:
        raise NotFoundError("job", grant.grant_id)
    return _Snapshot(
        job=job,
        live_nodes=leases.live_nodes(connection, grant.grant_id, now=now),
        assets=assets.find_with_versions(connection, refs),
        node=node,
        site=site,
    )


def _decide(
    broker: Broker,
    *,
    stage: str,
    grant: JobGrant,
    refs: Sequence[AssetRef],
    proof: Proof,
    snapshot: _Snapshot,
    now: int,
) -> _Verdict:
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
    return _Verdict(ordered([*reasons, *unknown]), merged, tuple(inputs))


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


def merge_obligations(obligations: Sequence[Obligation]) -> tuple[tuple[Obligation, ...], list[Reason]]:
    """The union of all assets' obligations, the strictest of each; and a reason for each that cannot be kept."""
    seconds: dict[str, int] = {}
    others: dict[str, Obligation] = {}
    reasons: list[Reason] = []
    for obligation in obligations:
        value = obligation.params.get("seconds")
        if obligation.code in _SECONDS and isinstance(value, int) and not isinstance(value, bool) and value > 0:
            seconds[obligation.code] = min(value, seconds.get(obligation.code, value))
        elif obligation.code in _KNOWN - _SECONDS:
            others[obligation.code] = obligation
        else:
            reasons.append(
                Reason(
                    "UNKNOWN_OBLIGATION",
                    "obligations",
                    ", ".join(sorted(_KNOWN)),
                    obligation.code,
                    "An obligation that the broker cannot keep is a refusal",
                    "mend the release policy, or update the broker",
                )
            )
    merged = [Obligation(code, {"seconds": value}) for code, value in seconds.items()]
    return tuple(sorted([*merged, *others.values()], key=lambda item: item.code)), reasons


def _lifetime(broker: Broker, obligations: Sequence[Obligation]) -> int:
    """Seconds until the holder must attest again: renewal and re-attestation are one."""
    ceilings = [value for item in obligations if isinstance(value := item.params.get("seconds"), int)]
    return min([broker.config.limits.lease_seconds, *ceilings])


def _obligations_text(obligations: Sequence[Obligation]) -> str:
    return rfc8785.dumps([item.to_json() for item in obligations]).decode("utf-8")


def parse_obligations(text: str) -> tuple[Obligation, ...]:
    """Read back what a lease stores."""
    return tuple(Obligation(item["code"], item["params"]) for item in json.loads(text))


def _recheck(
    connection: Connection, snapshot: _Snapshot, *, grant: JobGrant, refs: Sequence[AssetRef], now: int
) -> None:
    """Under the job's lock: does everything that the policy was told still hold, and will it until the commit?

    The node and the assets are locked against changes, not against each other's leases: a quarantine or a revocation
    that runs on another replica waits for this commit, and then finds the lease that it has to end.
    """
    job = jobs.get(connection, grant.grant_id, lock=True)
    node = snapshot.node
    if node is None or snapshot.site is None:
        raise _StaleError
    live = set(leases.live_nodes(connection, grant.grant_id, now=now))
    holds = (
        job == snapshot.job
        and len(live | {node.node_id}) <= grant.node_ceiling
        and nodes.get_with_site(connection, node.node_id, share=True) == (node, snapshot.site)
        and assets.find_with_versions(connection, refs, share=True) == snapshot.assets
    )
    if not holds:
        raise _StaleError


def _commit_lease(
    broker: Broker,
    *,
    grant: JobGrant,
    digest: bytes,
    refs: tuple[AssetRef, ...],
    proof: Proof,
    snapshot: _Snapshot,
    verdict: _Verdict,
    caller: Principal,
    now: int,
) -> LeaseRow:
    lease_id = f"lease-{secrets.token_hex(16)}"
    next_nonce = challenge.issue(broker.epochs, grant=digest, broker=broker.name, now=now).nonce
    expires_at = min(now + _lifetime(broker, verdict.obligations), grant.not_after)
    node, site = snapshot.node, snapshot.site
    if node is None or site is None:
        raise _StaleError

    record = _record(
        broker,
        kind=Kind.LEASE_GRANTED,
        grant=grant,
        refs=refs,
        proof=proof,
        verdict=verdict,
        reasons=(),
        lease_id=lease_id,
        caller=caller,
        expires_at=expires_at,
        now=now,
    )

    def unit(connection: Connection) -> LeaseRow:
        _recheck(connection, snapshot, grant=grant, refs=refs, now=now)
        repeated = _repeated(connection, proof, now=now)
        if repeated is not None:
            lease, because = repeated
            if because is None:
                return lease
            raise NonceSpentError(
                nonce=proof.nonce, node_id=node.node_id, lease_id=lease.lease_id, transcript=lease.transcript
            )
        row = LeaseRow(
            lease_id=lease_id,
            nonce=proof.nonce,
            node_id=node.node_id,
            grant_id=grant.grant_id,
            job_uid=grant.job_uid,
            tenant=grant.tenant,
            transcript=proof.transcript,
            hpke_key=proof.hpke_key,
            signing_key=proof.signing_key,
            assets=tuple(sorted(str(ref) for ref in refs)),
            policy_digest=bytes.fromhex(broker.policies.release.digest),
            state=LeaseState.LIVE,
            granted_at=now,
            expires_at=expires_at,
            ended_at=None,
            renewed_count=0,
            next_nonce=next_nonce,
            entry_hash=_put(connection, record, proof=proof, verdict=verdict, now=now),
            attestation_result=proof.result,
            obligations=_obligations_text(verdict.obligations),
        )
        leases.insert(connection, row)
        return row

    return broker.commit(unit, order=grant.grant_id)


def _commit_renewal(
    broker: Broker,
    *,
    lease: LeaseRow,
    grant: JobGrant,
    refs: tuple[AssetRef, ...],
    proof: Proof,
    snapshot: _Snapshot,
    verdict: _Verdict,
    caller: Principal,
    now: int,
) -> tuple[RenewalRow, LeaseRow]:
    next_nonce = challenge.issue(broker.epochs, grant=proof.grant, broker=broker.name, now=now).nonce
    expires_at = min(now + _lifetime(broker, verdict.obligations), grant.not_after)

    record = _record(
        broker,
        kind=Kind.LEASE_RENEWED,
        grant=grant,
        refs=refs,
        proof=proof,
        verdict=verdict,
        reasons=(),
        lease_id=lease.lease_id,
        caller=caller,
        expires_at=expires_at,
        now=now,
    )

    def unit(connection: Connection) -> tuple[RenewalRow, LeaseRow]:
        _recheck(connection, snapshot, grant=grant, refs=refs, now=now)
        repeated = _repeated_renewal(connection, proof, lease=lease)
        if isinstance(repeated, RenewalRow):
            return repeated, leases.get(connection, lease.lease_id)
        row = RenewalRow(
            nonce=proof.nonce,
            node_id=lease.node_id,
            lease_id=lease.lease_id,
            sequence=lease.renewed_count + 1,
            transcript=proof.transcript,
            hpke_key=proof.hpke_key,
            signing_key=proof.signing_key,
            policy_digest=bytes.fromhex(broker.policies.release.digest),
            renewed_at=now,
            expires_at=expires_at,
            next_nonce=next_nonce,
            entry_hash=_put(connection, record, proof=proof, verdict=verdict, now=now),
            attestation_result=proof.result,
            obligations=_obligations_text(verdict.obligations),
        )
        return row, leases.renew(connection, row)

    return broker.commit(unit, order=grant.grant_id)


def _answer(broker: Broker, lease: LeaseRow, *, versions: Mapping[AssetRef, AssetVersionRow]) -> Granted:
    """Wrap the keys of a lease that is on stable storage; nothing before this line has touched one.

    Args:
        broker: the running broker.
        lease: the lease.
        versions: those of its asset versions that its own transaction has read; others are read now.
    """
    keys = []
    with broker.read() as connection:
        for text in lease.assets:
            ref = AssetRef.parse(text)
            version = versions.get(ref) or assets.get_version(connection, ref)
            data_key = broker.hierarchy.unwrap_data_key(
                connection, version.wrapped_key, tenant=lease.tenant, ref=version.ref, key_id=version.key_id
            )
            info = hpke_info(
                transcript=lease.transcript,
                lease_id=lease.lease_id,
                ref=version.ref,
                key_id=version.key_id,
                policy_digest=lease.policy_digest,
            )
            ciphertext = hpke_seal(data_key, public_key=lease.hpke_key, info=info)
            keys.append(WrappedKey(version.ref, version.key_id, ciphertext, version.manifest_digest))
    return Granted(
        lease=lease,
        obligations=parse_obligations(lease.obligations),
        attestation_result=lease.attestation_result,
        receipt=broker.receipt(entry_hash=lease.entry_hash, at=lease.granted_at),
        next_nonce=lease.next_nonce,
        keys=tuple(keys),
    )


def _renewed(broker: Broker, lease: LeaseRow, renewal: RenewalRow) -> Granted:
    return Granted(
        lease=lease,
        obligations=parse_obligations(renewal.obligations),
        attestation_result=renewal.attestation_result,
        receipt=broker.receipt(entry_hash=renewal.entry_hash, at=renewal.renewed_at),
        next_nonce=renewal.next_nonce,
    )


def _record(
    broker: Broker,
    *,
    kind: Kind,
    grant: JobGrant,
    refs: Sequence[AssetRef],
    proof: Proof,
    verdict: _Verdict,
    reasons: Sequence[Reason],
    lease_id: str | None,
    caller: Principal,
    expires_at: int | None,
    now: int,
) -> Record:
    node, site = proof.standing.node, proof.standing.site
    detail: dict[str, str | int | bool | tuple[str, ...]] = {
        "grant": grant.grant_id,
        "purposes": grant.purposes,
        "simulated": proof.attestation.simulated,
        "transcript_digest": proof.transcript.hex(),
        "appraisal_policy_digest": broker.policies.appraisal.digest,
        "scheduler": grant.scheduler,
    }
    if expires_at is not None:
        detail["expires_at"] = expires_at
    return Record.build(
        kind=kind,
        time=now,
        actor=actor(caller),
        tenant=grant.tenant,
        job=grant.job_uid,
        node=None if node is None else node.node_id,
        hardware=proof.standing.hardware,
        site=None if site is None else site.site_id,
        jurisdiction=None if site is None else site.jurisdiction,
        assets=tuple(str(ref) for ref in refs),
        policy_digest=broker.policies.release.digest,
        input_digest=sha256(documents.decision_index(appraisal=proof.document, release=verdict.documents)).hex(),
        result=Result.DENIED if reasons else Result.ALLOWED,
        reasons=tuple(sorted({reason.code for reason in reasons})),
        lease=lease_id,
        detail=detail,
    )


def _put(connection: Connection, record: Record, *, proof: Proof, verdict: _Verdict, now: int) -> bytes:
    """Store a record and what it was decided on; the entry's hash."""
    documents.put_decision(connection, appraisal=proof.document, release=verdict.documents, now=now)
    return append(connection, record).entry_hash


def _denied(
    broker: Broker,
    *,
    kind: Kind,
    grant: JobGrant,
    refs: Sequence[AssetRef],
    proof: Proof,
    verdict: _Verdict,
    reasons: Sequence[Reason],
    lease_id: str | None,
    caller: Principal,
    now: int,
) -> DeniedError:
    """Remember a refusal, then return it.

    Evidence that proves no enrolled node, or was not made for this session, is anybody's to send: past a limit such
    refusals are counted, not recorded one by one.
    """
    codes = sorted({reason.code for reason in reasons})
    if not proof.present and not broker.refusals.admit(kind, caller=caller, codes=codes, now=now):
        return DeniedError(reasons)

    record = _record(
        broker,
        kind=kind,
        grant=grant,
        refs=refs,
        proof=proof,
        verdict=verdict,
        reasons=reasons,
        lease_id=lease_id,
        caller=caller,
        expires_at=None,
        now=now,
    )

    def unit(connection: Connection) -> bytes:
        return _put(connection, record, proof=proof, verdict=verdict, now=now)

    return DeniedError(reasons, record_hash=broker.commit(unit))
