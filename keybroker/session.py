"""Is this proof for this very request? Assets, lease, keys and nonce must be those that it was made for."""

from __future__ import annotations

from keybroker.denial import Reason
from keybroker.errors import NonceSpentError
from keybroker.proof import Proof
from keybroker.store.leases import LeaseRow
from keybroker.store.schema import LeaseState


def scope_reasons(proof: Proof, *, assets: bytes, lease_id: str) -> list[Reason]:
    """Why the proof is not one for these assets (their list's digest) and this lease (empty: a new one)."""
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


def lease_reasons(proof: Proof, *, lease: LeaseRow, now: int) -> list[Reason]:
    """Why the proof does not renew this lease: it has ended, or belongs to other keys or another node."""
    reasons = []
    if lease.state is not LeaseState.LIVE or lease.expires_at <= now:
        reasons.append(not_live(lease))
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


def not_live(lease: LeaseRow) -> Reason:
    """The reason for a lease that has ended."""
    state = lease.state.value if lease.state is not LeaseState.LIVE else "past its end"
    return Reason(
        "LEASE_NOT_LIVE",
        "lease",
        "live",
        state,
        "A lease that has ended gives no keys",
        "collect fresh evidence with a new nonce and acquire a new lease",
    )


def spent_reason(error: NonceSpentError) -> Reason:
    """The reason for a nonce that the node used before."""
    return Reason(
        error.code,
        "runtime_data.nonce",
        "a nonce that this node has not used",
        "used before, with other evidence",
        "A nonce serves a node once",
        "ask GetChallenge for a nonce and collect fresh evidence",
    )
