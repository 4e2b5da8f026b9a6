"""What a node proved last: remembered with whatever it attested for, and recalled when somebody plans with it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Final

from sqlalchemy import Connection

from keybroker.broker import Broker
from keybroker.constraints import Assurance
from keybroker.denial import Reason, at_most
from keybroker.errors import NotFoundError
from keybroker.proof import Proof
from keybroker.store import documents, node_attestations
from keybroker.store.node_attestations import NodeAttestationRow
from keystead.binding import sha256
from policy.inputs import AttestationInput

MAX_REASONS: Final = 256
"""Reasons that are kept of one appraisal: there are fewer codes, and the first of each code comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastAppraisal:
    """What is known of a node that is not here: its last evidence, if any (`keybroker.decision.Appraised`).

    Attributes:
        claimed_node_id: what it said its name is.
        matches: the identities that it proved are exactly the enrolled set.
        attestation: what the appraisal decided; None where it never attested, or under another policy.
        reasons: everything that spoke against it by itself.
        document: the appraisal policy's canonical input; empty where it is not at hand.
        appraised_at: when; None where `attestation` is None.
    """

    claimed_node_id: str
    matches: bool
    attestation: AttestationInput | None
    reasons: tuple[Reason, ...]
    document: bytes
    appraised_at: int | None

    @classmethod
    def none(cls, node_id: str) -> LastAppraisal:
        """Of a node that has not attested: nothing speaks against it, and nothing for it."""
        return cls(claimed_node_id=node_id, matches=True, attestation=None, reasons=(), document=b"", appraised_at=None)


def remember(connection: Connection, proof: Proof, *, tenant: str | None, now: int) -> None:
    """Keep what a node has just proven, good or bad, in the transaction that acts on it.

    Only evidence that the node made for this session counts: recorded evidence is anybody's to send. A passport says
    nothing that its own appraisal has not said.

    Args:
        connection: of the transaction.
        proof: what was proven.
        tenant: whose job the evidence was for; None where for none.
        now: integer seconds since the Unix epoch.
    """
    node = proof.standing.node
    if node is None or not proof.present or not proof.document:
        return
    attestation = proof.attestation
    node_attestations.put(
        connection,
        NodeAttestationRow(
            node_id=node.node_id,
            appraised_at=now,
            allow=attestation.allow,
            status=attestation.status,
            simulated=attestation.simulated,
            assurance=attestation.assurance,
            tenant=tenant,
            host_data=attestation.host_data,
            claimed_node_id=proof.claimed_node_id,
            matches=proof.matches,
            policy_digest=bytes.fromhex(attestation.policy_digest),
            document=sha256(proof.document),
            codes=attestation.codes,
            reason_codes=tuple(sorted({reason.code for reason in proof.reasons})),
            reasons=_written(proof.reasons),
        ),
    )


def recall(broker: Broker, connection: Connection, node_id: str, *, tenant: str, now: int) -> LastAppraisal:
    """What a node's last evidence came to, as `tenant` may know it: not what another tenant launched on it."""
    row = node_attestations.find(connection, node_id)
    policies = broker.policies
    if row is None or row.policy_digest.hex() != policies.appraisal.digest or row.appraised_at > now:
        return LastAppraisal.none(node_id)
    return LastAppraisal(
        claimed_node_id=row.claimed_node_id,
        matches=row.matches,
        attestation=AttestationInput(
            allow=row.allow,
            status=row.status,
            simulated=row.simulated,
            policy_digest=row.policy_digest.hex(),
            codes=row.codes,
            age=now - row.appraised_at,
            assurance=Assurance.parse(row.assurance).label,
            host_data=row.host_data if row.tenant in (None, tenant) else "",
        ),
        reasons=read_reasons(row.reasons),
        document=b"" if policies.of(tenant).appraisal is None else find_document(connection, row.document),
        appraised_at=row.appraised_at,
    )


def find_document(connection: Connection, digest: bytes) -> bytes:
    """The appraisal policy's input of this digest; empty where it is not kept any more."""
    try:
        return documents.get(connection, digest)
    except NotFoundError:
        return b""


def read_reasons(text: str) -> tuple[Reason, ...]:
    """Read back what `remember` wrote."""
    return tuple(Reason(*fields) for fields in json.loads(text))


def _written(reasons: Iterable[Reason]) -> str:
    """Reasons as JSON; where there are more than are kept, `reason_codes` has the codes of all."""
    return json.dumps([astuple(reason) for reason in at_most(reasons, MAX_REASONS)], separators=(",", ":"))
