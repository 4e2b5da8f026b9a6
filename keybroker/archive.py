"""Keeping appraisals so that they can be run again, at the price of one row each.

What an appraisal shares with others is stored once in a period (`keybroker.store.appraisals`). Which documents this
period has named is remembered only once the database has said so: a transaction that failed leaves no trace here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from attestation.composite import NodeEvidence
from attestation.lru import LruCache
from keybroker import appraisal_record
from keybroker.appraisal_record import AppraisalRecord, Circumstances, Documents, Package
from keybroker.errors import AppraisalRecordError, InvalidRequestError
from keybroker.judgement import Judgement
from keybroker.policies import Policies
from keybroker.store import appraisals
from keybroker.store.appraisals import AppraisalRow
from keybroker.trust import Trust
from keystead.binding import sha256

MAX_STRANGER: Final = 128 << 10
"""Bytes that are kept of evidence that proves no enrolled node, or was not made for this session: anybody's to send."""

MAX_KNOWN: Final = 1 << 17
"""Documents, one for each node and few others, that are known to be stored."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An appraisal on its way into the store.

    Attributes:
        row: the record.
        documents: those that it shares and that may have to be stored with it.
    """

    row: AppraisalRow
    documents: Mapping[bytes, bytes] = field(repr=False)

    @property
    def digest(self) -> bytes:
        """Digest of the record."""
        return self.row.digest

    def put(self, connection: Connection) -> None:
        """Store it in the transaction of the decision that rests on it."""
        appraisals.put(connection, self.row, documents=self.documents)


class Archive:
    """What a broker keeps of its appraisals; safe to share between threads.

    Args:
        trust: what the broker believes.
        policies: what it decides by.
        verifier: its name.
    """

    def __init__(self, trust: Trust, policies: Policies, *, verifier: str) -> None:
        self.trust: Final = appraisal_record.trust_documents(trust.material)
        self.policy: Final = appraisal_record.policy_documents(policies.appraisal_file, policies.settings.to_data())
        self._verifier: Final = verifier
        self._known: Final[LruCache[bytes, int]] = LruCache(MAX_KNOWN)

    def keep(
        self,
        connection: Connection,
        *,
        evidence: NodeEvidence,
        runtime_data: bytes,
        judgement: Judgement,
        result: str,
        lifetime: int,
        now: int,
        stranger: bool,
    ) -> Kept | None:
        """Make the record of an appraisal; None where a stranger's is too long to be kept.

        Args:
            connection: to see which documents are stored.
            evidence: of the node.
            runtime_data: what the CPU evidence vouches for.
            judgement: what came of it.
            result: the Attestation Result.
            lifetime: seconds until it expires.
            now: the appraisal's time, integer seconds since the Unix epoch.
            stranger: the evidence proves no enrolled node, or was not made for this session.
        """
        if stranger and evidence_size(evidence, runtime_data) > MAX_STRANGER:
            return None
        certificates = appraisal_record.certificate_documents((evidence.cpu, *evidence.devices))
        record = appraisal_record.record_bytes(
            evidence=evidence,
            runtime_data=runtime_data,
            judgement=judgement,
            result=result,
            certificates=certificates.digest,
            trust=self.trust.digest,
            policy=self.policy.digest,
            verifier=self._verifier,
            lifetime=lifetime,
            now=now,
        )
        documents: dict[bytes, bytes] = {}
        for shared in (certificates, self.trust, self.policy):
            if not self._is_stored(connection, shared, period=appraisals.period_of(now)):
                documents |= shared.contents
        return Kept(
            AppraisalRow(
                digest=sha256(record),
                content=appraisal_record.compress(record),
                result_digest=sha256(result.encode("ascii")),
                appraised_at=now,
            ),
            documents,
        )

    def circumstances(self) -> Circumstances:
        """What the broker believes and decides by today."""
        return Circumstances(
            trust=self.trust.digest,
            policy=self.policy.digest,
            documents={**self.trust.contents, **self.policy.contents},
        )

    def _is_stored(self, connection: Connection, shared: Documents, *, period: int) -> bool:
        # Documents come into the store together with the one that names them, so that one stands for all.
        if self._known.get(shared.digest) != period:
            if not appraisals.is_used(connection, shared.digest, period=period):
                return False
            self._known.put(shared.digest, period)
        return True


def load(connection: Connection, digest: bytes, *, decision: bytes, proof: bytes | None) -> Package:
    """A kept appraisal with all that it names.

    Args:
        connection: to read from.
        digest: of the record.
        decision: the document that names it.
        proof: the proof bundle of the log's entry that rests on it.

    Raises:
        NotFoundError: it is not kept, or no longer.
        AppraisalRecordError: what is stored was altered, or is not complete.
    """
    record = appraisal_record.decompress(appraisals.get(connection, digest))
    if sha256(record) != digest:
        raise AppraisalRecordError(f"appraisal {digest.hex()}: altered, its digest is {sha256(record).hex()}")
    documents: dict[bytes, bytes] = {}
    for head in appraisal_record.heads(AppraisalRecord.parse(record)):
        documents[head] = appraisals.get_document(connection, head)
        for each in appraisal_record.named_by(documents[head]):
            documents[each] = appraisals.get_document(connection, each)
    return Package.of(record, documents, decision=decision, proof=proof)


def evidence_size(evidence: NodeEvidence, runtime_data: bytes) -> int:
    """Bytes of evidence, certificates and runtime data."""
    return len(runtime_data) + sum(
        len(each.data) + sum(map(len, each.certificates)) for each in (evidence.cpu, *evidence.devices)
    )


def check_size(evidence: NodeEvidence, runtime_data: bytes) -> None:
    """Check, before anything is judged, that evidence is not too long to be kept.

    Raises:
        InvalidRequestError: it is.
    """
    size = evidence_size(evidence, runtime_data)
    if size > appraisal_record.MAX_EVIDENCE:
        raise InvalidRequestError(
            "evidence", f"{size} bytes with its certificates, at most {appraisal_record.MAX_EVIDENCE} are allowed"
        )
