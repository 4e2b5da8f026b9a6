"""Every parser of untrusted bytes, as a fuzz target: what is called, with which seeds, and which errors may come back.

Seeds come from the project's own encoders and simulators. `fuzz_seeds` makes them; where the shared vectors are
present their files are further seeds, read in place.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import fuzz_seeds as seeds
from fuzz_target import Target, parts, scratch, text
from google.protobuf.message import DecodeError

from attestation import ear
from attestation.composite import verify_node
from attestation.conformance import judge
from attestation.ecdsa import EcdsaKey
from attestation.errors import (
    AttestationError,
    MalformedError,
    ManifestError,
    ReferenceSignatureError,
    ResultError,
    UnsupportedError,
)
from attestation.findings import CheckLog
from attestation.inspect import detect_scheme, inspect_evidence
from attestation.nvgpu.abi import GpuEvidence
from attestation.nvswitch.abi import SwitchEvidence
from attestation.ocsp import OcspResponses
from attestation.pem import certificates_from_pem
from attestation.reference.advisories import dump_advisories, parse_advisories
from attestation.reference.signature import load_private_key, load_public_key, signature_lines, verify_detached
from attestation.reference.values import parse_reference_values
from attestation.rim import conformance as rim_conformance
from attestation.rim.verify import parse_rim, verify_rim
from attestation.snp.abi import AttestationReport, Product, TcbVersion
from attestation.snp.azure_hcl import HclReport
from attestation.snp.azure_hcl import RuntimeData as HclRuntimeData
from attestation.snp.cert_table import parse_cert_table
from attestation.snp.certificate import AmdCertificate
from attestation.snp.endorsements import VekCertificate, crl_content
from attestation.spdm import dice
from attestation.spdm.abi import SignedMeasurements, parse_record, record_to_bytes
from attestation.spdm.opaque import opaque_to_bytes, parse_opaque
from attestation.types import Collateral, Evidence
from attestation.verifier import verify_evidence
from attestation.x509 import ChainRules, EcAlgorithm, verify_chain
from attester.errors import AttesterError
from attester.grant_file import GrantFile
from audit.checkpoint import Checkpoint, open_checkpoint
from audit.cosignature import Cosigner, WitnessKey
from audit.envelope import Leaf
from audit.erasure import ERASED_KEYS, erased_keys
from audit.errors import AuditError
from audit.filter import parse_asset
from audit.merkle import Frontier, verify_consistency, verify_inclusion
from audit.note import NoteSigner, NoteVerifier, SignedNote, check_key_name, parse_signature_line
from audit.package.description import Description
from audit.package.files import open_archive, read_whole
from audit.package.lines import Line
from audit.package.manifest import DESCRIPTION, MANIFEST, RECORDS, FileDigest, open_manifest
from audit.package.manifest import Manifest as PackageManifest
from audit.package.verify import verify_package
from audit.payload import unseal
from audit.proof import ProofBundle, verify_bundle
from audit.receipt import Receipt
from audit.records import Actor, Kind, Record, Result
from audit.tiles import TilePath, decode_bundle, encode_bundle
from audit.witness import AddCheckpoint, parse_cosignature, parse_size
from keybroker import requests
from keybroker.appraisal_record import AppraisalRecord, Circumstances, Package, decompress, named_by
from keybroker.assets import check_key_id
from keybroker.bucket_address import BucketAddress
from keybroker.config import BrokerConfig
from keybroker.constraints import Constraints, ConstraintsError
from keybroker.errors import ConfigError, GrantInvalidError, InvalidRequestError, KeybrokerError, NotAuthenticatedError
from keybroker.grants import SignedGrant, open_grant
from keybroker.keys.signing import parse_public_key
from keybroker.keys.wrap import unwrap, wrapping_key_id
from keybroker.principals import parse_spiffe_id
from keybroker.services import convert
from keybroker.site_record import LegalEntity, SiteRecord
from keybroker.statements import Authorities, Statement, StatementError, verify_signature
from keybroker.statements import verify as verify_statement
from keystead import binding
from keystead.binding import AssetRef, BindingError, HpkePrivateKey, JobGrant, RuntimeData, UnwrapError
from keystead.cli.asset_kind import Kind as AssetKind
from keystead.cli.descriptions.document import DescriptionError
from keystead.cli.descriptions.draft import Draft, DraftInput, read_description
from keystead.cli.exits import UsageError
from keystead.cli.instants import parse_duration, parse_instant
from keystead.cli.profile import Profile
from keystead.toml import TomlError, read_toml
from keystead.v1 import evidence_pb2
from policy.bundle import Bundle
from policy.decision import Decision
from policy.documents import encode_document, read_json_object
from policy.errors import PolicyError
from sealed.asset import parse_digest
from sealed.errors import SealedError
from sealed.format import Header, Layout
from sealed.manifest import LABEL_SEALED_MANIFEST, Manifest, check_asset, check_name
from sealed.open import SealedReader

NOW = seeds.NOW


def same(parse: Callable[[bytes], Any]) -> Callable[[bytes], None]:
    """What `parse` accepts must write back byte for byte."""

    def run(data: bytes) -> None:
        assert parse(data).to_bytes() == data

    return run


# attestation


def _signed(scheme: str, evidence: bytes) -> bytes:
    """What the signature in `evidence` covers."""
    if scheme == "snp-azure-hcl":
        evidence = HclReport.parse(evidence).report
    return evidence[:0x2A0] if scheme.startswith("snp") else evidence[:-96]


def _evidence(scheme: str, slot: str, expected: bytes) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        evidence, *certificates = parts(data) or (b"",)
        result = verify_evidence(
            Evidence(slot, scheme, evidence, tuple(certificates)),
            expected=expected,
            anchors=seeds.anchors(),
            reference=seeds.reference(),
            collateral=seeds.collateral(),
            now=NOW,
        )
        # Signatures aside: chips have fresh keys in each run, and a kept corpus has evidence of the last run's.
        sound = {_signed(scheme, parts(each)[0]) for each in seeds.sound_evidence(scheme)}
        assert not result.ok or _signed(scheme, evidence) in sound, "evidence that was altered is accepted"

    return run


def _snp_report(data: bytes) -> None:
    report = AttestationReport.parse(data)
    assert report.to_bytes() == data
    _ = (report.product, report.signer_info, report.policy)


def _tcb(data: bytes) -> None:
    for product in Product:
        with contextlib.suppress(MalformedError):
            assert TcbVersion.parse(data, product).to_bytes(product) == data


def _amd_certificate(data: bytes) -> None:
    certificate = AmdCertificate.parse(data, what="certificate")
    _ = (certificate.common_name, certificate.is_amd_name, certificate.may_sign_certificates)


def _collateral(data: bytes) -> None:
    """Revocation lists and OCSP responses that somebody made, around sound evidence."""
    crl, *responses = parts(data) or (b"",)
    for evidence, expected in seeds.evidence():
        verify_evidence(
            evidence,
            expected=expected,
            anchors=seeds.anchors(),
            reference=seeds.reference(),
            collateral=Collateral(crls=(crl,), ocsp=tuple(responses)),
            now=NOW,
        )


def _node(data: bytes) -> None:
    runtime, *devices = parts(data) or (b"",)
    evidence = [
        Evidence(f"gpu{index}", "nvgpu", device, seeds.evidence()[1][0].certificates)
        for index, device in enumerate(devices)
    ]
    node = seeds.node_evidence(devices=tuple(evidence))
    verify_node(
        node,
        runtime_data=runtime,
        device_nonce=bytes(32),
        anchors=seeds.anchors(),
        reference=seeds.reference(),
        collateral=seeds.collateral(),
        now=NOW,
    )


def _gpu(data: bytes) -> None:
    for trailing in (False, True):
        with contextlib.suppress(MalformedError, UnsupportedError):
            evidence = GpuEvidence.parse(data, allow_trailing_byte=trailing)
            assert evidence.to_bytes() == data
            _ = (evidence.mode, evidence.chip, evidence.driver_version, evidence.vbios_version)


def _switch(data: bytes) -> None:
    for trailing in (False, True):
        with contextlib.suppress(MalformedError, UnsupportedError):
            evidence = SwitchEvidence.parse(data, allow_trailing_byte=trailing)
            assert evidence.to_bytes() == data
            _ = (evidence.pdi, evidence.gpu_pdis, evidence.position, evidence.lock_status, evidence.bios_version)


def _record(data: bytes) -> None:
    blocks = parse_record(data[1:], data[0] if data else 0)
    assert record_to_bytes(blocks) == data[1:]


def _opaque(data: bytes) -> None:
    assert opaque_to_bytes(parse_opaque(data)) == data


def _dice(data: bytes) -> None:
    for parse in (dice.parse_composite_device_id, dice.parse_dice_tcb_info):
        with contextlib.suppress(MalformedError):
            parse(data)


def _chain(data: bytes) -> None:
    certificates = parts(data)
    rules = ChainRules(
        length=len(certificates), algorithm=EcAlgorithm.P384_SHA384, pinned_roots=seeds.pinned_nvidia_roots()
    )
    log = CheckLog()
    assert verify_chain(certificates, rules=rules, now=NOW, log=log).trusted == (not log.findings)


def _rim_verify(data: bytes) -> None:
    log = CheckLog()
    rim = verify_rim(data, anchors=seeds.rim_anchors(), now=NOW, log=log)
    assert (rim is None) == bool(log.findings)
    assert rim is None or rim.document in seeds.rim_documents(), "a manifest that was altered is accepted"


def _advisories(data: bytes) -> None:
    table = parse_advisories(data, name="table.toml")
    again = parse_advisories(dump_advisories(table), name="table.toml")
    assert again.advisories == table.advisories


def _signatures(data: bytes) -> None:
    with contextlib.suppress(ReferenceSignatureError):
        signature_lines(data, kind=seeds.SIGNATURE_KIND, name="values.toml")
    signers = verify_detached(
        data,
        seeds.SIGNED,
        kind=seeds.SIGNATURE_KIND,
        signers=[seeds.OWNER_KEY.public_key()],
        threshold=1,
        name="values.toml",
    )
    assert len(signers) == 1


def _signing_keys(data: bytes) -> None:
    for load in (load_public_key, load_private_key):
        with contextlib.suppress(AttestationError):
            load(data, name="key.pem")


def _rim_conformance(data: bytes) -> None:
    rim_conformance.judge(data, anchors=seeds.rim_anchors(), now=NOW)


def _inspect(data: bytes) -> None:
    evidence, *certificates = parts(data) or (b"",)
    _ = detect_scheme(evidence)
    json.dumps(inspect_evidence(evidence, certificates=tuple(certificates)).to_json())


def _ear(data: bytes) -> None:
    ear.verify(text(data), keys=seeds.EAR_KEYS, issuer=seeds.ISSUER, now=NOW)


def _ear_payload(data: bytes) -> None:
    """A payload of anything, signed with the right key."""
    ear.verify(seeds.ear_token(data), keys=seeds.EAR_KEYS, issuer=seeds.ISSUER, now=NOW)


def _manifest(data: bytes) -> None:
    with scratch("manifest.json", data) as path:
        (path.parent / "report.bin").write_bytes(seeds.SMALL_FILE)
        judge(path)


# keystead


def _fields(data: bytes) -> None:
    with contextlib.suppress(BindingError):
        fields = binding.decode("keystead/v1/fuzz", data, 3)
        assert binding.encode("keystead/v1/fuzz", *fields) == data
    with contextlib.suppress(BindingError):
        assert binding.encode_list(binding.decode_list(data, what="list")) == data


def _toml(data: bytes) -> None:
    read_toml(data, limit=len(data))


def _asset_ref(data: bytes) -> None:
    assert str(AssetRef.parse(text(data))) == text(data)


def _hpke_key(data: bytes) -> None:
    with contextlib.suppress(BindingError):
        assert HpkePrivateKey.from_bytes(data).to_bytes() == data
    binding.check_hpke_public_key(data)


# audit


def _note(data: bytes) -> None:
    note = SignedNote.parse(data)
    assert note.to_bytes() == data
    note.verify(seeds.LOG_SIGNER.verifier)


def _sealed_payload(data: bytes) -> None:
    """Nothing opens but what was sealed."""
    opened = unseal(seeds.PAYLOAD_CIPHER, data, key_id="fuzz", entry_hash=bytes(32))
    assert data == seeds.SEALED_PAYLOAD
    assert opened == (bytes(32), b"{}")


def _erased_keys(data: bytes) -> None:
    """A line that names a destroyed key is the one line that does."""
    record = Record.build(
        kind=Kind.AUDIT_ERASED,
        time=1,
        actor=Actor(role="operator", name="dpo"),
        result=Result.RECORDED,
        detail={ERASED_KEYS: (text(data),)},
    )
    for key in erased_keys(record):
        assert str(key) == text(data)


def _note_keys(data: bytes) -> None:
    for parse in (NoteVerifier.parse, NoteSigner.parse, check_key_name):
        with contextlib.suppress(AuditError):
            parse(text(data))


def _checkpoint(data: bytes) -> None:
    with contextlib.suppress(AuditError):
        assert Checkpoint.parse_text(text(data)).to_text() == text(data)
    assert data in seeds.checkpoints() or not open_checkpoint(data, seeds.LOG_SIGNER.verifier)


def _receipt(data: bytes) -> None:
    Receipt.parse(data).verify(seeds.LOG_SIGNER.verifier)


def _proof(data: bytes) -> None:
    bundle = ProofBundle.parse(data)
    assert ProofBundle.parse(bundle.to_bytes()) == bundle
    verify_bundle(bundle, seeds.LOG_SIGNER.verifier)


class _InMemory:
    """A package that lies in no archive."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    def names(self) -> frozenset[str]:
        return frozenset(self._files)

    def pieces(self, name: str) -> Iterator[bytes]:
        return iter((self._files[name],))


def _package(data: bytes) -> None:
    """An archive that somebody altered."""
    with open_archive(io.BytesIO(data)) as files:
        result = verify_package(files, seeds.LOG_SIGNER.verifier, known=data)
        assert not result.ok
        if verify_package(files, seeds.LOG_SIGNER.verifier).ok:
            for name, content in seeds.package_files().items():
                assert read_whole(files, name) == content, "a package that was altered is accepted"


def _package_contents(data: bytes) -> None:
    """Description and records that the log's own operator altered, and signed again."""
    description, records = (*parts(data), b"", b"")[:2]
    files = seeds.package_files() | {DESCRIPTION: description, RECORDS: records}
    said = open_manifest(files.pop(MANIFEST), seeds.LOG_SIGNER.verifier)
    digests = tuple(
        FileDigest(name, len(content), hashlib.sha256(content).hexdigest()) for name, content in sorted(files.items())
    )
    files[MANIFEST] = replace(said, files=digests).sign(seeds.LOG_SIGNER).to_bytes()
    result = verify_package(_InMemory(files), seeds.LOG_SIGNER.verifier)
    assert not result.ok or records == seeds.package_files()[RECORDS], "records that were altered are accepted"


def _package_manifest(data: bytes) -> None:
    with contextlib.suppress(AuditError):
        assert PackageManifest.parse_text(text(data)).to_text() == text(data)
    open_manifest(data, seeds.LOG_SIGNER.verifier)


def _package_line(data: bytes) -> None:
    assert Line.parse(data).to_bytes() == data


def _package_description(data: bytes) -> None:
    assert Description.parse(data).to_bytes() == data


def _merkle(data: bytes) -> None:
    if len(data) < 24:
        return
    index, size, older = struct.unpack_from("<QQQ", data)
    hashes = tuple(data[at : at + 32] for at in range(24, len(data), 32))
    root = hashes[0] if hashes else bytes(32)
    with contextlib.suppress(AuditError):
        verify_inclusion(leaf=bytes(32), index=index, size=size, proof=hashes, root=root)
    with contextlib.suppress(AuditError):
        verify_consistency(old_size=older, new_size=size, old_root=bytes(32), new_root=root, proof=hashes)
    assert Frontier.parse(size, data[24:]).to_bytes() == data[24:]


def _record_parse(data: bytes) -> None:
    assert Record.parse(data).payload() == data


def _tiles(data: bytes) -> None:
    with contextlib.suppress(AuditError):
        assert str(TilePath.parse(text(data))) == text(data)
    assert encode_bundle(decode_bundle(data)) == data


def _query(data: bytes) -> None:
    parse_asset(text(data))


# sealed


def _sealed_file(data: bytes) -> None:
    with SealedReader(io.BytesIO(data), key=bytes(32), context=b"fuzz") as reader:
        reader.verify()
        assert len(reader.read_at(0, 1 << 20)) == Layout.of_sealed_size(len(data)).plaintext_size(0)


def _sealed_header(data: bytes) -> None:
    assert Header.parse(data).to_bytes() == data


def _sealed_manifest(data: bytes) -> None:
    assert Manifest.parse(data).to_bytes() == data
    Manifest.parse_vouched(data, digest=binding.sha256(data))
    signature = seeds.OWNER_KEY.sign(binding.encode(LABEL_SEALED_MANIFEST, binding.sha256(data)))
    Manifest.parse_signed(data, signature=signature, owner=seeds.OWNER_KEY.public_key())


def _sealed_names(data: bytes) -> None:
    for check in (check_name, check_asset, parse_digest):
        with contextlib.suppress(SealedError):
            check(text(data))


# policy


def _decision(data: bytes) -> None:
    decision = Decision.from_document(read_json_object(data, what="decision"))
    assert Decision.from_document(decision.to_json()) == decision


def _document(data: bytes) -> None:
    document = read_json_object(data, what="document")
    encoded = encode_document(document, what="document")
    assert read_json_object(encoded, what="document") == document


def _bundle_files(data: bytes) -> None:
    """The documents in a bundle, without the tar around them."""
    manifest, document, module = (*parts(data), b"", b"", b"")[:3]
    Bundle.from_files({".manifest": manifest, "data.json": document, "policy.wasm": module})


def _bundle_tar(data: bytes) -> None:
    """A tarball whose gzip is sound, so that changes reach the archive."""
    Bundle.load(seeds.gzipped(data))


# keybroker, attester


def _config(data: bytes) -> None:
    with scratch("keystead.toml", data) as path:
        BrokerConfig.load(path)


def _profile(data: bytes) -> None:
    with scratch("alice.toml", data) as path:
        Profile.load(path)


def _description(data: bytes) -> None:
    """What is read becomes a draft, whatever stands in it."""
    description = read_description(data)
    inputs = [DraftInput(name=name) for name in description.inputs]
    draft = Draft.of(description, asset="acme/fuzz", kind=AssetKind.DATASET, inputs=inputs)
    assert Draft.parse(draft.to_bytes()) == draft


def _draft(data: bytes) -> None:
    draft = Draft.parse(data)
    assert Draft.parse(draft.to_bytes()) == draft
    draft.parents()


def _wrapped(data: bytes) -> None:
    with contextlib.suppress(KeybrokerError):
        wrapping_key_id(data)
    unwrap(data, key=bytes(32), key_id="root", context=b"fuzz")


def _signed_grant(data: bytes) -> None:
    """A grant of anything, signed with the right key."""
    signed = SignedGrant(data, seeds.OWNER_KEY.sign(data), "k")
    open_grant(signed, key_id="k", public_key=seeds.OWNER_KEY.public_key(), broker=seeds.ISSUER)


def _appraisals(data: bytes) -> None:
    """What an auditor is given; a record that is accepted says what the bytes say."""
    for parse in (AppraisalRecord.parse, named_by, decompress):
        with contextlib.suppress(KeybrokerError):
            parse(data)
    with contextlib.suppress(KeybrokerError):
        assert Circumstances.parse(data).to_bytes() == data
    assert Package.parse(data).to_bytes() == data


def _messages(data: bytes) -> None:
    """Evidence as a node sends it."""
    try:
        message = evidence_pb2.NodeEvidence.FromString(data)
    except DecodeError:
        return
    convert.node_evidence(message)


def _bucket_address(data: bytes) -> None:
    address = BucketAddress.parse(text(data))
    assert BucketAddress.parse(str(address)) == address


def _request_fields(data: bytes) -> None:
    word = text(data)
    for check in (
        requests.request_id,
        requests.page_token,
        lambda each: requests.identifier(each, "field"),
        requests.asset_name,
        lambda each: requests.names(each.split(","), "field"),
        check_key_id,
        lambda each: requests.text(each, "field"),
    ):
        with contextlib.suppress(InvalidRequestError):
            check(word)
    requests.digest(data, "field")


def _constraints(data: bytes) -> None:
    word = text(data)
    with contextlib.suppress(ConstraintsError):
        assert Constraints.parse(word).to_json() == word
    try:
        document = json.loads(word)
    except (ValueError, RecursionError):
        return
    constraints = Constraints.from_document(document)
    assert Constraints.parse(constraints.to_json()) == constraints


def _statement(data: bytes) -> None:
    """A statement, read as a site record, and signatures over it."""
    payload, *tokens = parts(data) or (b"",)
    statement = Statement.parse(payload)
    assert statement.payload == payload
    authorities = Authorities.of({"signer": seeds.STATEMENT_KEY.public_key()}, threshold=1)
    for token in tokens:
        with contextlib.suppress(StatementError):
            verify_signature(statement, text(token), keys=authorities.keys)
    with contextlib.suppress(KeybrokerError):
        verify_statement(
            payload, [text(token) for token in tokens], kind="site-record", authorities=authorities, author_counts=True
        )
    SiteRecord.of(statement, known_places={"DE", "FR"})


def _legal_entity(data: bytes) -> None:
    LegalEntity.read(text(data))


def _signing_public_key(data: bytes) -> None:
    parse_public_key(data, what="key.pem")


def _witness_keys(data: bytes) -> None:
    word = text(data)
    with contextlib.suppress(AuditError):
        assert str(WitnessKey.parse(word)) == word
    assert Cosigner.parse(word).skey() == word


def _cosignatures(data: bytes) -> None:
    for line in text(data).split("\n"):
        with contextlib.suppress(AuditError):
            seeds.COSIGNER.key.verify(seeds.CHECKPOINT.to_text(), parse_signature_line(line))
    with contextlib.suppress(AuditError):
        parse_size(data)
    parse_cosignature(data, seeds.CHECKPOINT.to_text(), seeds.COSIGNER.key)


def _grant_file(data: bytes) -> None:
    grant = GrantFile.parse(data)
    assert GrantFile.parse(grant.to_bytes()) == grant


def _instants(data: bytes) -> None:
    for parse in (parse_duration, parse_instant):
        with contextlib.suppress(UsageError):
            parse(text(data))


_EVIDENCE_ERRORS = (AttestationError,)
_MALFORMED = (MalformedError,)
_ABI_ERRORS = (MalformedError, UnsupportedError)

TARGETS = (
    Target(
        name="audit.add-checkpoint",
        run=same(AddCheckpoint.parse),
        seeds=seeds.add_checkpoints,
        errors=(AuditError,),
        covers=("audit.witness:AddCheckpoint.parse",),
    ),
    Target(
        name="audit.cosignature",
        run=_cosignatures,
        seeds=seeds.cosignatures,
        errors=(AuditError,),
        covers=(
            "audit.cosignature:WitnessKey.verify",
            "audit.note:parse_signature_line",
            "audit.witness:parse_cosignature",
            "audit.witness:parse_size",
        ),
        max_len=2048,
    ),
    Target(
        name="audit.witness-keys",
        run=_witness_keys,
        seeds=lambda: (str(seeds.COSIGNER.key).encode(), seeds.COSIGNER.skey().encode()),
        errors=(AuditError,),
        covers=("audit.cosignature:WitnessKey.parse", "audit.cosignature:Cosigner.parse"),
        max_len=512,
    ),
    Target(
        name="keybroker.constraints",
        run=_constraints,
        seeds=seeds.constraints,
        errors=(ConstraintsError,),
        covers=(
            "keybroker.constraints:Assurance.parse",
            "keybroker.constraints:Constraints.from_document",
            "keybroker.constraints:Constraints.parse",
        ),
    ),
    Target(
        name="keybroker.statement",
        run=_statement,
        seeds=seeds.statements,
        errors=(StatementError,),
        covers=(
            "keybroker.site_record:SiteRecord.check",
            "keybroker.site_record:SiteRecord.read",
            "keybroker.statements:Statement.parse",
            "keybroker.statements:check_name",
            "keybroker.statements:verify",
            "keybroker.statements:verify_signature",
        ),
    ),
    Target(
        name="keybroker.legal-entity",
        run=_legal_entity,
        seeds=lambda: (b"ACME Cloud GmbH:DE", b"ACME: Cloud:DE:5299000J2N45DDNE4Y28"),
        errors=(StatementError,),
        covers=("keybroker.site_record:LegalEntity.read",),
        max_len=512,
    ),
    Target(
        name="keybroker.public-key",
        run=_signing_public_key,
        seeds=seeds.public_keys,
        errors=(KeybrokerError,),
        covers=("keybroker.keys.signing:parse_public_key",),
        max_len=512,
    ),
    Target(
        name="attestation.snp-report",
        run=_snp_report,
        seeds=seeds.snp_reports,
        errors=_ABI_ERRORS,
        covers=("attestation.snp.abi:AttestationReport.parse", "attestation.wire:Reader.take"),
        max_len=1200,
        vectors=("snp/*/*report*",),
    ),
    Target(
        name="attestation.snp-tcb",
        run=_tcb,
        seeds=lambda: (bytes(8), b"\x0a\0\0\0\0\0\x17\x54"),
        errors=(),
        covers=("attestation.snp.abi:TcbVersion.parse",),
        max_len=16,
    ),
    Target(
        name="attestation.snp-evidence",
        run=_evidence("snp", "cpu0", seeds.REPORT_DATA),
        seeds=lambda: seeds.sound_evidence("snp"),
        errors=_EVIDENCE_ERRORS,
        covers=(
            "attestation.verifier:verify_evidence",
            "attestation.registry:SnpScheme.verify",
            "attestation.snp.verify:verify",
            "attestation.snp.endorsements:SnpAnchors.verify_chain",
            "attestation.snp.certificate:verify_pss_sha384",
            "attestation.ecdsa:EcdsaKey.verify_raw",
        ),
        max_len=12288,
        runs=400,
    ),
    Target(
        name="attestation.cert-table",
        run=parse_cert_table,
        seeds=seeds.cert_tables,
        errors=_MALFORMED,
        covers=("attestation.snp.cert_table:parse_cert_table",),
        max_len=12288,
    ),
    Target(
        name="attestation.hcl",
        run=HclReport.parse,
        seeds=seeds.hcl_reports,
        errors=_MALFORMED,
        covers=("attestation.snp.azure_hcl:HclReport.parse",),
    ),
    Target(
        name="attestation.hcl-runtime-data",
        run=HclRuntimeData.parse,
        seeds=seeds.hcl_runtime_data,
        errors=_MALFORMED,
        covers=("attestation.snp.azure_hcl:RuntimeData.parse",),
    ),
    Target(
        name="attestation.hcl-evidence",
        run=_evidence("snp-azure-hcl", "cpu0", seeds.REPORT_DATA),
        seeds=lambda: seeds.sound_evidence("snp-azure-hcl"),
        errors=_EVIDENCE_ERRORS,
        covers=("attestation.snp.azure_verify:verify", "attestation.registry:SnpAzureHclScheme.verify"),
        max_len=12288,
        runs=300,
    ),
    Target(
        name="attestation.spki",
        run=EcdsaKey.from_spki,
        seeds=seeds.spkis,
        errors=(),
        covers=("attestation.ecdsa:EcdsaKey.from_spki",),
        max_len=512,
    ),
    Target(
        name="attestation.amd-certificate",
        run=_amd_certificate,
        seeds=seeds.amd_certificates,
        errors=_MALFORMED,
        covers=("attestation.snp.certificate:AmdCertificate.parse",),
        vectors=("snp/*/*.der",),
    ),
    Target(
        name="attestation.vek",
        run=VekCertificate.parse,
        seeds=seeds.veks,
        errors=_MALFORMED,
        covers=("attestation.snp.endorsements:VekCertificate.parse",),
        vectors=("snp/*/*v?ek*.der",),
    ),
    Target(
        name="attestation.crl",
        run=crl_content,
        seeds=seeds.crls,
        errors=_MALFORMED,
        covers=("attestation.snp.endorsements:crl_content", "attestation.snp.endorsements:load_crl"),
        vectors=("snp/*/*crl*",),
    ),
    Target(
        name="attestation.collateral",
        run=_collateral,
        seeds=seeds.collateral_parts,
        errors=_EVIDENCE_ERRORS,
        covers=(
            "attestation.ocsp:OcspCache.parse",
            "attestation.ocsp:check_revocation",
            "attestation.snp.endorsements:SnpAnchors.check_revocation",
            "attestation.ecdsa:EcdsaKey.verify_der",
        ),
        max_len=12288,
        runs=150,
    ),
    Target(
        name="attestation.node",
        run=_node,
        seeds=seeds.node_parts,
        errors=_EVIDENCE_ERRORS,
        covers=("attestation.composite:verify_node",),
        max_len=12288,
        runs=150,
    ),
    Target(
        name="attestation.spdm",
        run=same(SignedMeasurements.parse),
        seeds=seeds.spdm_messages,
        errors=_ABI_ERRORS,
        covers=("attestation.spdm.abi:SignedMeasurements.parse",),
        vectors=("nvidia/*/*report*", "nvswitch/*/*report*"),
    ),
    Target(
        name="attestation.spdm-record",
        run=_record,
        seeds=lambda: (b"\x01" + seeds.RECORD, b"\0"),
        errors=_MALFORMED,
        covers=("attestation.spdm.abi:parse_record",),
    ),
    Target(
        name="attestation.spdm-opaque",
        run=_opaque,
        seeds=lambda: (opaque_to_bytes({1: b"x", 3: b"535.1"}),),
        errors=_MALFORMED,
        covers=("attestation.spdm.opaque:parse_opaque",),
    ),
    Target(
        name="attestation.dice",
        run=_dice,
        seeds=seeds.dice_structures,
        errors=(),
        covers=("attestation.spdm.dice:parse_composite_device_id", "attestation.spdm.dice:parse_dice_tcb_info"),
        max_len=1024,
    ),
    Target(
        name="attestation.nvgpu",
        run=_gpu,
        seeds=seeds.gpu_reports,
        errors=_ABI_ERRORS,
        covers=("attestation.nvgpu.abi:GpuEvidence.parse",),
        vectors=("nvidia/*/*report*",),
    ),
    Target(
        name="attestation.nvgpu-evidence",
        run=_evidence("nvgpu", "gpu0", seeds.NONCE),
        seeds=lambda: seeds.sound_evidence("nvgpu"),
        errors=_EVIDENCE_ERRORS,
        covers=("attestation.nvgpu.verify:verify", "attestation.registry:NvGpuScheme.verify"),
        max_len=12288,
        runs=400,
    ),
    Target(
        name="attestation.nvswitch",
        run=_switch,
        seeds=seeds.switch_reports,
        errors=_ABI_ERRORS,
        covers=("attestation.nvswitch.abi:SwitchEvidence.parse",),
        vectors=("nvswitch/*/*report*",),
    ),
    Target(
        name="attestation.nvswitch-evidence",
        run=_evidence("nvswitch", "nvswitch0", seeds.NONCE),
        seeds=lambda: seeds.sound_evidence("nvswitch"),
        errors=_EVIDENCE_ERRORS,
        covers=("attestation.nvswitch.verify:verify", "attestation.registry:NvSwitchScheme.verify"),
        max_len=12288,
        runs=400,
    ),
    Target(
        name="attestation.x509-chain",
        run=_chain,
        seeds=seeds.nvidia_chains,
        errors=_MALFORMED,
        covers=("attestation.x509:verify_chain", "attestation.x509:ChainCache.verify"),
        max_len=12288,
        runs=600,
    ),
    Target(
        name="attestation.ocsp",
        run=lambda data: OcspResponses.parse([data]),
        seeds=seeds.ocsp_responses,
        errors=_MALFORMED,
        covers=("attestation.ocsp:OcspResponses.parse",),
        vectors=("nvidia/*/*ocsp*", "nvswitch/*/*ocsp*"),
    ),
    Target(
        name="attestation.rim",
        run=parse_rim,
        seeds=seeds.rims,
        errors=_MALFORMED,
        covers=("attestation.rim.verify:parse_rim", "attestation.rim.xml:parse_xml"),
        max_len=32768,
        vectors=("nvidia-rim/*/*rim*",),
    ),
    Target(
        name="attestation.rim-verify",
        run=_rim_verify,
        seeds=seeds.rims,
        errors=_MALFORMED,
        covers=("attestation.rim.verify:verify_rim",),
        max_len=32768,
        runs=300,
    ),
    Target(
        name="attestation.pem",
        run=certificates_from_pem,
        seeds=seeds.pem_bundles,
        errors=_MALFORMED,
        covers=("attestation.pem:certificates_from_pem",),
        max_len=12288,
        vectors=("*/*/*.pem",),
    ),
    Target(
        name="attestation.inspect",
        run=_inspect,
        seeds=seeds.inspected,
        errors=_ABI_ERRORS,
        covers=("attestation.inspect:detect_scheme", "attestation.inspect:inspect_evidence"),
        max_len=12288,
    ),
    Target(
        name="attestation.reference-values",
        run=lambda data: parse_reference_values(data, name="values.toml"),
        seeds=seeds.reference_files,
        errors=(ManifestError,),
        covers=("attestation.reference.values:parse_reference_values",),
    ),
    Target(
        name="attestation.conformance-manifest",
        run=_manifest,
        seeds=seeds.conformance_manifests,
        errors=(ManifestError,),
        covers=(
            "attestation.conformance:judge",
            "attestation.conformance:load_manifest",
            "attestation.snp.conformance:judge",
        ),
        runs=600,
    ),
    Target(
        name="attestation.advisories",
        run=_advisories,
        seeds=seeds.advisory_tables,
        errors=(ManifestError,),
        covers=("attestation.reference.advisories:parse_advisories",),
    ),
    Target(
        name="attestation.reference-signature",
        run=_signatures,
        seeds=seeds.reference_signatures,
        errors=(ReferenceSignatureError,),
        covers=("attestation.reference.signature:verify_detached",),
    ),
    Target(
        name="attestation.reference-keys",
        run=_signing_keys,
        seeds=seeds.signing_keys,
        errors=(),
        covers=(
            "attestation.reference.signature:load_public_key",
            "attestation.reference.signature:load_private_key",
        ),
        max_len=1024,
    ),
    Target(
        name="attestation.rim-conformance",
        run=_rim_conformance,
        seeds=seeds.rims,
        errors=(AttestationError,),
        covers=("attestation.rim.conformance:judge",),
        max_len=32768,
        runs=150,
    ),
    Target(
        name="attestation.ear",
        run=_ear,
        seeds=seeds.ear_tokens,
        errors=(ResultError,),
        covers=("attestation.ear:verify",),
    ),
    Target(
        name="attestation.ear-payload",
        run=_ear_payload,
        seeds=seeds.ear_payloads,
        errors=(ResultError,),
        covers=("attestation.ear:verify",),
    ),
    Target(
        name="keystead.encoding",
        run=_fields,
        seeds=lambda: (binding.encode("keystead/v1/fuzz", b"a", b"", b"c"), binding.encode_list([b"a", b""])),
        errors=(),
        covers=("keystead.binding:decode", "keystead.binding:decode_list"),
        max_len=512,
    ),
    Target(
        name="keystead.toml",
        run=_toml,
        seeds=lambda: (*seeds.configs(), *seeds.reference_files()),
        errors=(TomlError,),
        covers=("keystead.toml:read_toml",),
    ),
    Target(
        name="keystead.grant",
        run=same(JobGrant.parse),
        seeds=seeds.grants,
        errors=(BindingError,),
        covers=("keystead.binding:JobGrant.parse",),
    ),
    Target(
        name="keystead.runtime-data",
        run=same(RuntimeData.parse),
        seeds=seeds.runtime_data,
        errors=(BindingError,),
        covers=("keystead.binding:RuntimeData.parse",),
    ),
    Target(
        name="keystead.asset-ref",
        run=_asset_ref,
        seeds=lambda: (b"acme/llm@7",),
        errors=(BindingError,),
        covers=("keystead.binding:AssetRef.parse", "keystead.binding:check_id"),
        max_len=256,
    ),
    Target(
        name="keystead.hpke-key",
        run=_hpke_key,
        seeds=lambda: (seeds.HPKE_KEY.public_key, seeds.HPKE_KEY.to_bytes()),
        errors=(BindingError,),
        covers=("keystead.binding:HpkePrivateKey.from_bytes", "keystead.binding:check_hpke_public_key"),
        max_len=1300,
        runs=600,
    ),
    Target(
        name="keystead.hpke-ciphertext",
        run=lambda data: seeds.HPKE_KEY.open(data, info=b"fuzz"),
        seeds=lambda: (binding.hpke_seal(b"key", public_key=seeds.HPKE_KEY.public_key, info=b"fuzz"),),
        errors=(UnwrapError,),
        covers=("keystead.binding:HpkePrivateKey.open",),
        max_len=1400,
        runs=400,
    ),
    Target(
        name="audit.note",
        run=_note,
        seeds=seeds.checkpoints,
        errors=(AuditError,),
        covers=("audit.note:SignedNote.parse", "audit.note:NoteVerifier.verify"),
    ),
    Target(
        name="audit.note-keys",
        run=_note_keys,
        seeds=lambda: (str(seeds.LOG_SIGNER.verifier).encode(), seeds.LOG_SKEY.encode()),
        errors=(),
        covers=("audit.note:NoteVerifier.parse", "audit.note:NoteSigner.parse", "audit.note:check_key_name"),
        max_len=512,
    ),
    Target(
        name="audit.checkpoint",
        run=_checkpoint,
        seeds=lambda: (*seeds.checkpoints(), seeds.CHECKPOINT.to_text().encode()),
        errors=(AuditError,),
        covers=("audit.checkpoint:Checkpoint.parse_text", "audit.checkpoint:open_checkpoint"),
    ),
    Target(
        name="audit.receipt",
        run=_receipt,
        seeds=seeds.receipts,
        errors=(AuditError,),
        covers=("audit.receipt:Receipt.parse",),
    ),
    Target(
        name="audit.proof",
        run=_proof,
        seeds=seeds.proofs,
        errors=(AuditError,),
        covers=("audit.proof:ProofBundle.parse", "audit.proof:verify_bundle"),
    ),
    Target(
        name="audit.package",
        run=_package,
        seeds=seeds.packages,
        errors=(AuditError,),
        covers=("audit.package.files:read_whole", "audit.package.verify:verify_package"),
        max_len=1 << 15,
        runs=400,
    ),
    Target(
        name="audit.package-contents",
        run=_package_contents,
        seeds=seeds.package_contents,
        errors=(AuditError,),
        covers=("audit.package.gaps:Gap.from_json",),
    ),
    Target(
        name="audit.package-manifest",
        run=_package_manifest,
        seeds=lambda: (
            seeds.package_files()[MANIFEST],
            seeds.package_files()[MANIFEST].partition(b"\n\n")[0] + b"\n",
        ),
        errors=(AuditError,),
        covers=("audit.package.manifest:Manifest.parse_text", "audit.package.manifest:open_manifest"),
    ),
    Target(
        name="audit.package-record",
        run=_package_line,
        seeds=lambda: seeds.package_files()[RECORDS].splitlines(keepends=True),
        errors=(AuditError,),
        covers=("audit.package.lines:Line.parse",),
    ),
    Target(
        name="audit.package-description",
        run=_package_description,
        seeds=lambda: (seeds.package_files()[DESCRIPTION],),
        errors=(AuditError,),
        covers=("audit.package.description:Description.parse",),
    ),
    Target(
        name="audit.merkle",
        run=_merkle,
        seeds=lambda: (struct.pack("<QQQ", 3, 7, 4) + bytes(96), struct.pack("<QQQ", 0, 1, 1)),
        errors=(AuditError,),
        covers=("audit.merkle:verify_inclusion", "audit.merkle:verify_consistency", "audit.merkle:Frontier.parse"),
        max_len=24 + 32 * 70,
    ),
    Target(
        name="audit.record",
        run=_record_parse,
        seeds=seeds.records,
        errors=(AuditError,),
        covers=("audit.records:Record.parse",),
    ),
    Target(
        name="audit.leaf",
        run=same(Leaf.parse),
        seeds=lambda: (Leaf(bytes(32)).to_bytes(),),
        errors=(AuditError,),
        covers=("audit.envelope:Leaf.parse",),
        max_len=128,
    ),
    Target(
        name="audit.sealed-payload",
        run=_sealed_payload,
        seeds=lambda: (seeds.SEALED_PAYLOAD,),
        errors=(AuditError,),
        covers=("audit.payload:unseal",),
        max_len=512,
    ),
    Target(
        name="audit.erased-keys",
        run=_erased_keys,
        seeds=lambda: (b"ab" * 16 + b" 7 " + b"cd" * 32,),
        errors=(AuditError,),
        covers=(),
        max_len=256,
    ),
    Target(
        name="audit.tiles",
        run=_tiles,
        seeds=lambda: (encode_bundle([b"abc", b"de"]), b"tile/0/x001/067.p/8", b"tile/entries/000"),
        errors=(AuditError,),
        covers=("audit.tiles:TilePath.parse", "audit.tiles:decode_bundle"),
    ),
    Target(
        name="audit.query",
        run=_query,
        seeds=lambda: (b"acme/llm@7", b"acme/llm"),
        errors=(AuditError,),
        covers=("audit.filter:parse_asset",),
        max_len=256,
    ),
    Target(
        name="sealed.header",
        run=_sealed_header,
        seeds=lambda: (bytes((40,)) + bytes(39),),
        errors=(SealedError,),
        covers=("sealed.format:Header.parse",),
        max_len=64,
    ),
    Target(
        name="sealed.file",
        run=_sealed_file,
        seeds=seeds.sealed_files,
        errors=(SealedError,),
        covers=("sealed.open:SealedReader",),
        runs=800,
    ),
    Target(
        name="sealed.manifest",
        run=_sealed_manifest,
        seeds=seeds.sealed_manifests,
        errors=(SealedError,),
        covers=(
            "sealed.manifest:Manifest.parse",
            "sealed.manifest:Manifest.parse_signed",
            "sealed.manifest:Manifest.parse_vouched",
        ),
    ),
    Target(
        name="sealed.names",
        run=_sealed_names,
        seeds=lambda: (b"weights/model.safetensors", b"acme/llm", b"ab" * 32),
        errors=(),
        covers=("sealed.manifest:check_name", "sealed.manifest:check_asset", "sealed.asset:parse_digest"),
        max_len=512,
    ),
    Target(
        name="policy.decision",
        run=_decision,
        seeds=seeds.decisions,
        errors=(PolicyError,),
        covers=("policy.decision:Decision.from_document",),
    ),
    Target(
        name="policy.document",
        run=_document,
        seeds=seeds.decisions,
        errors=(PolicyError,),
        covers=("policy.documents:read_json_object",),
    ),
    Target(
        name="policy.bundle",
        run=Bundle.load,
        seeds=seeds.bundles,
        errors=(PolicyError,),
        covers=("policy.bundle:Bundle.load",),
    ),
    Target(
        name="policy.bundle-tar",
        run=_bundle_tar,
        seeds=seeds.tarballs,
        errors=(PolicyError,),
        covers=("policy.bundle:Bundle.load",),
        max_len=16384,
    ),
    Target(
        name="policy.bundle-files",
        run=_bundle_files,
        seeds=seeds.bundle_parts,
        errors=(PolicyError,),
        covers=("policy.bundle:Bundle.from_files",),
    ),
    Target(
        name="keybroker.config",
        run=_config,
        seeds=seeds.configs,
        errors=(ConfigError,),
        covers=("keybroker.config:BrokerConfig.load",),
    ),
    Target(
        name="keybroker.spiffe-id",
        run=lambda data: parse_spiffe_id(text(data), trust_domain="factory.example"),
        seeds=lambda: (b"spiffe://factory.example/operator/olga", b"spiffe://factory.example/tenant/acme/owner/al"),
        errors=(NotAuthenticatedError,),
        covers=("keybroker.principals:parse_spiffe_id",),
        max_len=512,
    ),
    Target(
        name="keybroker.wrapped-key",
        run=_wrapped,
        seeds=seeds.wrapped_keys,
        errors=(KeybrokerError,),
        covers=("keybroker.keys.wrap:unwrap",),
        max_len=512,
    ),
    Target(
        name="keybroker.grant",
        run=_signed_grant,
        seeds=seeds.grants,
        errors=(GrantInvalidError,),
        covers=("keybroker.grants:open_grant",),
        runs=600,
    ),
    Target(
        name="keybroker.appraisal",
        run=_appraisals,
        seeds=seeds.appraisals,
        errors=(KeybrokerError,),
        covers=(
            "keybroker.appraisal_record:AppraisalRecord.parse",
            "keybroker.appraisal_record:Circumstances.parse",
            "keybroker.appraisal_record:Package.parse",
            "keybroker.appraisal_record:decompress",
        ),
        runs=800,
    ),
    Target(
        name="keybroker.evidence-message",
        run=_messages,
        seeds=seeds.evidence_messages,
        errors=(InvalidRequestError,),
        covers=("keybroker.services.convert:node_evidence", "keybroker.services.convert:device_evidence"),
    ),
    Target(
        name="keybroker.bucket-address",
        run=_bucket_address,
        seeds=lambda: (b"s3://logs", b"s3://my.logs-1/a/b_c"),
        errors=(ConfigError,),
        covers=("keybroker.bucket_address:BucketAddress.parse",),
        max_len=1024,
    ),
    Target(
        name="keybroker.request-fields",
        run=_request_fields,
        seeds=lambda: (b"acme/llm", b"DE,FR-IDF", b"a" * 36, b"a" * 32),
        errors=(InvalidRequestError,),
        covers=("keybroker.requests:identifier", "keybroker.assets:check_key_id"),
        max_len=1024,
    ),
    Target(
        name="attester.grant-file",
        run=_grant_file,
        seeds=seeds.grant_files,
        errors=(AttesterError,),
        covers=("attester.grant_file:GrantFile.parse",),
    ),
    Target(
        name="cli.description",
        run=_description,
        seeds=seeds.descriptions,
        errors=(DescriptionError,),
        covers=("keystead.cli.descriptions.draft:read_description",),
    ),
    Target(
        name="cli.draft",
        run=_draft,
        seeds=seeds.drafts,
        errors=(DescriptionError,),
        covers=("keystead.cli.descriptions.draft:Draft.parse",),
    ),
    Target(
        name="cli.profile",
        run=_profile,
        seeds=lambda: (b'address = "localhost:8750"\nca = "ca.pem"\ncertificate = "a.pem"\nkey = "a.key"\n',),
        errors=(UsageError,),
        covers=("keystead.cli.profile:Profile.load",),
        runs=800,
    ),
    Target(
        name="cli.instants",
        run=_instants,
        seeds=lambda: (b"2026-11-22T13:00:00Z", b"8h", b"1790000000", b"2026-W47-7"),
        errors=(),
        covers=("keystead.cli.instants:parse_duration", "keystead.cli.instants:parse_instant"),
        max_len=64,
    ),
)
