"""Appraisal records: all that an appraisal was made of and came to, so that it can be made again.

A record is canonical JSON (RFC 8785) and named by its SHA-256 digest. What never or seldom changes is not in it but in
documents of its own, which it names by theirs, so that thousands of appraisals share them::

    record ── certificates ── every certificate of the node's devices
           ├─ trust ───────── simulators' roots, CRLs, reference manifests, OCSP responses, reference values
           └─ policy ──────── the compiled appraisal pack

`Package` is a record with all of them, as one file. It is read with nothing else, and believed in nothing: every
document must have the digest by which it is named, nothing may be missing and nothing superfluous.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Final, Literal, Self, TypeVar

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from attestation import ear
from attestation.composite import MAX_DEVICES, NodeEvidence
from attestation.types import Evidence
from keybroker.errors import AppraisalRecordError
from keybroker.judgement import PROFILE, Judgement
from keybroker.trust import Material, TrustFile
from keystead.binding import sha256
from policy.documents import encode_document
from policy.errors import PolicyInputError

RECORD_TYPE: Final = "keystead-appraisal/v1"
CERTIFICATES_TYPE: Final = "keystead-appraisal-certificates/v1"
TRUST_TYPE: Final = "keystead-appraisal-trust/v1"
POLICY_TYPE: Final = "keystead-appraisal-policy/v1"
PACKAGE_TYPE: Final = "keystead-appraisal-package/v1"
CIRCUMSTANCES_TYPE: Final = "keystead-appraisal-circumstances/v1"

MAX_EVIDENCE: Final = 1 << 20
"""Bytes of evidence, certificates and runtime data of one node. Eight GPUs and four switches have less than 200 KiB."""

MAX_RECORD: Final = 4 << 20
"""Bytes of a record, before compression."""

MAX_PACKAGE: Final = 256 << 20
"""Bytes of a package's file."""

_LEVEL: Final = 1
"""Of zlib: on eight GPUs' evidence level 9 saves 4% more than level 1, in eight times the time."""

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Base64 = Annotated[str, Field(max_length=2 * MAX_RECORD)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Device(_Model):
    slot: str
    scheme: str
    data: _Base64


class _Result(_Model):
    header: str
    claims: str
    signature: str


class _Outcome(_Model):
    allow: bool
    deny: tuple[dict[str, JsonValue], ...]
    input: _Digest
    result: _Result


class _Record(_Model):
    type: Literal["keystead-appraisal/v1"]
    appraised_at: Annotated[int, Field(ge=0)]
    verifier: str
    lifetime: Annotated[int, Field(ge=0)]
    profile: str
    build: str
    runtime_data: _Base64
    devices: Annotated[tuple[_Device, ...], Field(min_length=1, max_length=MAX_DEVICES + 1)]
    certificates: _Digest
    trust: _Digest
    policy: _Digest
    outcome: _Outcome


class _Certificates(_Model):
    type: Literal["keystead-appraisal-certificates/v1"]
    chains: tuple[tuple[_Digest, ...], ...]


class _TrustFile(_Model):
    name: str
    digest: _Digest


class _Trust(_Model):
    type: Literal["keystead-appraisal-trust/v1"]
    files: dict[str, tuple[_TrustFile, ...]]
    options: dict[str, bool | int | str]


class _Policy(_Model):
    type: Literal["keystead-appraisal-policy/v1"]
    bundle: _Digest
    data: dict[str, JsonValue]


class _Package(_Model):
    type: Literal["keystead-appraisal-package/v1"]
    record: _Digest
    documents: dict[_Digest, str]
    decision: str | None
    proof: str | None


class _Circumstances(_Model):
    type: Literal["keystead-appraisal-circumstances/v1"]
    trust: _Digest
    policy: _Digest
    documents: dict[_Digest, str]


M = TypeVar("M", bound=_Model)


@dataclass(frozen=True, slots=True)
class Documents:
    """A document that names others, with those that it names.

    Attributes:
        digest: of the one that names the others.
        contents: all of them by digest.
    """

    digest: bytes
    contents: Mapping[bytes, bytes]


def certificate_documents(evidence: Sequence[Evidence]) -> Documents:
    """The certificates that came with a node's evidence: the same for as long as its devices are."""
    chains = [[(sha256(certificate), certificate) for certificate in each.certificates] for each in evidence]
    head = {"type": CERTIFICATES_TYPE, "chains": [[digest.hex() for digest, _ in chain] for chain in chains]}
    return _documents(head, {digest: certificate for chain in chains for digest, certificate in chain})


def trust_documents(material: Material) -> Documents:
    """What a broker's trust is made of: the same until its configuration changes."""
    head = {
        "type": TRUST_TYPE,
        "files": {
            role: [{"name": file.name, "digest": sha256(file.content).hex()} for file in files]
            for role, files in material.files.items()
        },
        "options": dict(material.options),
    }
    return _documents(head, {sha256(file.content): file.content for files in material.files.values() for file in files})


def policy_documents(bundle: bytes, data: Mapping[str, object]) -> Documents:
    """The appraisal policy: a compiled pack's file, and the data that is laid over its own."""
    digest = sha256(bundle)
    return _documents({"type": POLICY_TYPE, "bundle": digest.hex(), "data": data}, {digest: bundle})


def _documents(head: Mapping[str, object], contents: dict[bytes, bytes]) -> Documents:
    # Settings may have any names, but are encoded once.
    data = _encode(head) if head["type"] == CERTIFICATES_TYPE else encode_document(head, what=str(head["type"]))
    digest = sha256(data)
    return Documents(digest, MappingProxyType({digest: data, **contents}))


def record_bytes(
    *,
    evidence: NodeEvidence,
    runtime_data: bytes,
    judgement: Judgement,
    result: str,
    certificates: bytes,
    trust: bytes,
    policy: bytes,
    verifier: str,
    lifetime: int,
    now: int,
) -> bytes:
    """The record of one appraisal.

    Args:
        evidence: of the node.
        runtime_data: what the CPU evidence vouches for, in their canonical encoding.
        judgement: what came of it.
        result: the Attestation Result, a signed EAR.
        certificates: digest of the document about the evidence's certificates.
        trust: of the one about trust.
        policy: of the one about the policy.
        verifier: name of the logical verifier.
        lifetime: seconds until the result expires.
        now: the appraisal's time, integer seconds since the Unix epoch.
    """
    header, claims, signature = result.split(".")
    return _encode(
        {
            "type": RECORD_TYPE,
            "appraised_at": now,
            "verifier": verifier,
            "lifetime": lifetime,
            "profile": PROFILE.name,
            "build": ear.BUILD,
            "runtime_data": _base64(runtime_data),
            "devices": [
                {"slot": each.slot, "scheme": each.scheme, "data": _base64(each.data)}
                for each in (evidence.cpu, *evidence.devices)
            ],
            "certificates": certificates.hex(),
            "trust": trust.hex(),
            "policy": policy.hex(),
            "outcome": {
                "allow": judgement.allow,
                "deny": [denial.to_json() for denial in judgement.decision.deny],
                "input": sha256(judgement.document).hex(),
                # As text, so that it compresses; base64url would hide what repeats.
                "result": {
                    "header": header,
                    "claims": base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)).decode("utf-8"),
                    "signature": signature,
                },
            },
        }
    )


def _encode(document: Mapping[str, object]) -> bytes:
    """RFC 8785 of a document whose names are all ASCII, in a third of the time that it takes for any document.

    Raises:
        PolicyInputError: a text, which only the policy can have made, holds half of a surrogate pair.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise PolicyInputError("appraisal record: a text holds half of a surrogate pair, which is no text") from None


def compress(record: bytes) -> bytes:
    """A record as it is stored."""
    return zlib.compress(record, _LEVEL)


def decompress(content: bytes) -> bytes:
    """A record out of what is stored.

    Raises:
        AppraisalRecordError: not what `compress` made.
    """
    inflate = zlib.decompressobj()
    try:
        record = inflate.decompress(content, MAX_RECORD + 1)
    except zlib.error as error:
        raise AppraisalRecordError(f"appraisal record: stored bytes do not decompress: {error}") from None
    if len(record) > MAX_RECORD or not inflate.eof or inflate.unused_data:
        raise AppraisalRecordError("appraisal record: stored bytes are cut short, too long, or followed by others")
    return record


@dataclass(frozen=True, slots=True, kw_only=True)
class AppraisalRecord:
    """One appraisal as it was.

    Attributes:
        digest: SHA-256 of the record.
        appraised_at: its time, integer seconds since the Unix epoch.
        verifier: name of the logical verifier.
        lifetime: seconds until the result expired.
        profile: the verification profile's name.
        build: `attestation.ear.BUILD` of the release that appraised.
        runtime_data: what the CPU evidence vouches for.
        devices: evidence without certificates, the CPU's first.
        certificates, trust, policy: digests of the documents about them.
        allow: whether verification and policy accepted the node.
        deny: the policy's denials, as it gave them.
        input_digest: of the policy's input.
        claims: the Attestation Result's, in canonical JSON.
        token: the Attestation Result as it was signed.
    """

    digest: bytes
    appraised_at: int
    verifier: str
    lifetime: int
    profile: str
    build: str
    runtime_data: bytes
    devices: tuple[Evidence, ...]
    certificates: bytes
    trust: bytes
    policy: bytes
    allow: bool
    deny: tuple[Mapping[str, JsonValue], ...]
    input_digest: bytes
    claims: bytes
    token: str

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a record.

        Raises:
            AppraisalRecordError: another type or version, or not a record in its canonical encoding.
        """
        what = "appraisal record"
        if len(data) > MAX_RECORD:
            raise AppraisalRecordError(f"{what}: longer than {MAX_RECORD} bytes")
        model = _read(_Record, data, RECORD_TYPE, what)
        outcome, result = model.outcome, model.outcome.result
        claims = result.claims.encode("utf-8")
        payload = base64.urlsafe_b64encode(claims).rstrip(b"=").decode("ascii")
        return cls(
            digest=sha256(data),
            appraised_at=model.appraised_at,
            verifier=model.verifier,
            lifetime=model.lifetime,
            profile=model.profile,
            build=model.build,
            runtime_data=_unbase64(model.runtime_data, f"{what}: runtime_data"),
            devices=tuple(
                Evidence(each.slot, each.scheme, _unbase64(each.data, f"{what}: evidence of {each.slot!r:.40}"))
                for each in model.devices
            ),
            certificates=bytes.fromhex(model.certificates),
            trust=bytes.fromhex(model.trust),
            policy=bytes.fromhex(model.policy),
            allow=outcome.allow,
            deny=outcome.deny,
            input_digest=bytes.fromhex(outcome.input),
            claims=claims,
            token=f"{result.header}.{payload}.{result.signature}",
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """The appraisal policy of a record.

    Attributes:
        bundle: the compiled pack's file.
        data: laid over the pack's own data.
    """

    bundle: bytes
    data: Mapping[str, object]


def heads(record: AppraisalRecord) -> tuple[bytes, bytes, bytes]:
    """Digests of the documents that name all others: certificates, trust, policy."""
    return record.certificates, record.trust, record.policy


def named_by(head: bytes) -> frozenset[bytes]:
    """Digests of what a document about certificates, trust or policy names.

    Raises:
        AppraisalRecordError: it is none of these.
    """
    what = "document of an appraisal"
    kind = _object(head, what).get("type")
    if kind == CERTIFICATES_TYPE:
        chains = _read(_Certificates, head, CERTIFICATES_TYPE, what).chains
        return frozenset(bytes.fromhex(digest) for chain in chains for digest in chain)
    if kind == TRUST_TYPE:
        files = _read(_Trust, head, TRUST_TYPE, what).files
        return frozenset(bytes.fromhex(file.digest) for role in files.values() for file in role)
    return frozenset((bytes.fromhex(_read(_Policy, head, POLICY_TYPE, what).bundle),))


def trust_material(head: bytes, documents: Mapping[bytes, bytes]) -> Material:
    """The bytes that trust is made of, out of the document about it.

    Raises:
        AppraisalRecordError: it is not one, or a file is missing.
    """
    trust = _read(_Trust, head, TRUST_TYPE, "trust")
    return Material(
        MappingProxyType(
            {
                role: tuple(
                    TrustFile(file.name, _found(documents, bytes.fromhex(file.digest), f"{role}: {file.name}"))
                    for file in files
                )
                for role, files in trust.files.items()
            }
        ),
        MappingProxyType(dict(trust.options)),
    )


def appraisal_policy(head: bytes, documents: Mapping[bytes, bytes]) -> Policy:
    """The appraisal policy, out of the document about it.

    Raises:
        AppraisalRecordError: it is not one, or the pack is missing.
    """
    model = _read(_Policy, head, POLICY_TYPE, "policy")
    return Policy(_found(documents, bytes.fromhex(model.bundle), "policy"), model.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What a broker believes and decides by at some time, whatever it is asked to appraise.

    Attributes:
        trust, policy: digests of the documents about them.
        documents: these and what they name, by SHA-256 digest.
    """

    trust: bytes
    policy: bytes
    documents: Mapping[bytes, bytes] = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            AppraisalRecordError: another type or version, altered, or not complete.
        """
        model = _read(_Circumstances, data, CIRCUMSTANCES_TYPE, "circumstances")
        documents = _checked(_decoded(model.documents))
        trust, policy = bytes.fromhex(model.trust), bytes.fromhex(model.policy)
        _check_closed(documents, (trust, policy), also=frozenset())
        return cls(trust=trust, policy=policy, documents=documents)

    def to_bytes(self) -> bytes:
        """The circumstances as canonical JSON (RFC 8785)."""
        return rfc8785.dumps(
            {
                "type": CIRCUMSTANCES_TYPE,
                "trust": self.trust.hex(),
                "policy": self.policy.hex(),
                "documents": {digest.hex(): _base64(content) for digest, content in self.documents.items()},
            }
        )

    def material(self) -> Material:
        """The bytes that the broker's trust is made of."""
        return trust_material(self.documents[self.trust], self.documents)

    def appraisal_policy(self) -> Policy:
        """The broker's appraisal policy."""
        return appraisal_policy(self.documents[self.policy], self.documents)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A record with everything that it names; nothing of it is believed yet but that digests fit.

    Attributes:
        record: the appraisal.
        documents: what it names, by SHA-256 digest, the record itself among them.
        decision: the document that the log's entry names by its digest, which names this record; or None.
        proof: the proof bundle of that entry (`audit.proof`), in JSON; or None.
    """

    record: AppraisalRecord
    documents: Mapping[bytes, bytes] = field(repr=False)
    decision: bytes | None = None
    proof: bytes | None = None

    @classmethod
    def of(
        cls,
        record: bytes,
        documents: Mapping[bytes, bytes],
        *,
        decision: bytes | None = None,
        proof: bytes | None = None,
    ) -> Self:
        """Join a record and its documents.

        Raises:
            AppraisalRecordError: a document's digest is another, one is missing, or one belongs to nothing.
        """
        parsed = AppraisalRecord.parse(record)
        whole = {**_checked(documents), parsed.digest: record}
        _check_closed(whole, heads(parsed), also=frozenset((parsed.digest,)))
        if decision is not None and _object(decision, "decision").get("evidence") != parsed.digest.hex():
            raise AppraisalRecordError("decision: it rests on another appraisal")
        made = cls(record=parsed, documents=MappingProxyType(whole), decision=decision, proof=proof)
        if len(made._chains()) != len(parsed.devices):
            raise AppraisalRecordError("certificates: not one chain for each device")
        return made

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a package's file.

        Raises:
            AppraisalRecordError: another type or version, altered, or not complete.
        """
        what = "appraisal package"
        if len(data) > MAX_PACKAGE:
            raise AppraisalRecordError(f"{what}: longer than {MAX_PACKAGE} bytes")
        model = _read(_Package, data, PACKAGE_TYPE, what)
        documents = _decoded(model.documents)
        record = _found(documents, bytes.fromhex(model.record), what)
        return cls.of(
            record,
            documents,
            decision=None if model.decision is None else model.decision.encode("utf-8"),
            proof=None if model.proof is None else model.proof.encode("utf-8"),
        )

    def to_bytes(self) -> bytes:
        """The package as a file: canonical JSON (RFC 8785), so that the same appraisal is the same file."""
        return rfc8785.dumps(
            {
                "type": PACKAGE_TYPE,
                "record": self.record.digest.hex(),
                "documents": {digest.hex(): _base64(content) for digest, content in self.documents.items()},
                "decision": None if self.decision is None else self.decision.decode("utf-8"),
                "proof": None if self.proof is None else self.proof.decode("utf-8"),
            }
        )

    def evidence(self) -> NodeEvidence:
        """The node's evidence as it was presented."""
        cpu, *devices = (
            Evidence(each.slot, each.scheme, each.data, chain)
            for each, chain in zip(self.record.devices, self._chains(), strict=True)
        )
        return NodeEvidence(cpu=cpu, devices=tuple(devices))

    def material(self) -> Material:
        """The bytes that the broker's trust was made of."""
        return trust_material(self.documents[self.record.trust], self.documents)

    def policy(self) -> Policy:
        """The broker's appraisal policy."""
        return appraisal_policy(self.documents[self.record.policy], self.documents)

    def _chains(self) -> list[tuple[bytes, ...]]:
        model = _read(_Certificates, self.documents[self.record.certificates], CERTIFICATES_TYPE, "certificates")
        return [tuple(self.documents[bytes.fromhex(digest)] for digest in chain) for chain in model.chains]


def _decoded(documents: Mapping[str, str]) -> dict[bytes, bytes]:
    return {bytes.fromhex(digest): _unbase64(content, f"document {digest}") for digest, content in documents.items()}


def _checked(documents: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    """`documents`, every one of which has the digest by which it is named."""
    for digest, content in documents.items():
        found = sha256(content)
        if found != digest:
            raise AppraisalRecordError(f"document {digest.hex()}: altered, its digest is {found.hex()}")
    return MappingProxyType(dict(documents))


def _check_closed(documents: Mapping[bytes, bytes], roots: Sequence[bytes], *, also: frozenset[bytes]) -> None:
    """Check that `documents` are `roots`, what these name, and `also`: no less and no more."""
    wanted = set(also)
    for head in roots:
        wanted |= {head, *named_by(_found(documents, head, "appraisal"))}
    for digest in sorted(wanted):
        _found(documents, digest, "appraisal")
    superfluous = sorted(documents.keys() - wanted)
    if superfluous:
        raise AppraisalRecordError(f"document {superfluous[0].hex()}: nothing names it")


def _read(model: type[M], data: bytes, kind: str, what: str) -> M:
    document = _object(data, what)
    if document.get("type") != kind:
        raise AppraisalRecordError(f"{what}: type {document.get('type')!r:.60}, this release reads {kind!r}")
    try:
        parsed = model.model_validate_json(data)
        canonical = rfc8785.dumps(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise AppraisalRecordError(f"{what}: {where:.100}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise AppraisalRecordError(f"{what}: {error}") from None
    if canonical != data:
        raise AppraisalRecordError(f"{what}: not in its canonical encoding")
    return parsed


def _object(data: bytes, what: str) -> dict[str, JsonValue]:
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise AppraisalRecordError(f"{what}: not JSON: {error}") from None
    if not isinstance(document, dict):
        raise AppraisalRecordError(f"{what}: not a JSON object")
    return document


def _found(documents: Mapping[bytes, bytes], digest: bytes, what: str) -> bytes:
    content = documents.get(digest)
    if content is None:
        raise AppraisalRecordError(f"{what}: document {digest.hex()} is missing")
    return content


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unbase64(text: str, what: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise AppraisalRecordError(f"{what}: not base64: {error}") from None
    if _base64(data) != text:
        raise AppraisalRecordError(f"{what}: not canonical base64")
    return data
