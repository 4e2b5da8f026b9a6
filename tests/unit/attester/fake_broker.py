"""A broker that speaks the real protocol over real mutual TLS and decides whatever a test tells it to."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import NameOID
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from attestation.types import Evidence
from attester.client import TlsMaterial
from keystead.binding import (
    NONCE_SIZE,
    AssetRef,
    AssetUse,
    RuntimeData,
    asset_list_digest,
    device_evidence_digest,
    device_nonce,
    grant_digest,
    hpke_info,
    hpke_seal,
    lease_return_message,
    passport_message,
    sha256,
    usage_report_message,
)
from keystead.v1 import attestation_service_pb2 as attestation_pb
from keystead.v1 import denial_pb2
from keystead.v1 import lease_service_pb2 as pb
from keystead.v1.attestation_service_pb2_grpc import (
    AttestationServiceServicer,
)
from keystead.v1.lease_service_pb2_grpc import LeaseServiceServicer

REF = AssetRef("acme/llama", 3)
OTHER = AssetRef("acme/corpus", 1)
KEY = bytes(range(32))
NODE = "ber1-n01"
BROKER = "keystead.example"
POLICY = bytes(range(100, 132))


class Refusal(Exception):  # noqa: N818 - an answer, not an error of the test
    """What a test has the broker answer instead."""

    def __init__(
        self, code: grpc.StatusCode, *, reason: str = "", denial: denial_pb2.Denial | None = None, raw: bytes = b""
    ) -> None:
        super().__init__(code)
        self.code, self.reason, self.denial, self.raw = code, reason, denial, raw


def refuse(context: grpc.ServicerContext, refusal: Refusal) -> None:
    details = []
    for message in (error_details_pb2.ErrorInfo(reason=refusal.reason, domain="keystead"), refusal.denial):
        if message is not None:
            packed = any_pb2.Any()
            packed.Pack(message)
            details.append(packed)
    status = status_pb2.Status(code=refusal.code.value[0], message="no", details=details)
    context.set_trailing_metadata((("grpc-status-details-bin", refusal.raw or status.SerializeToString()),))
    context.abort(refusal.code, "no")


class FakeBroker(AttestationServiceServicer, LeaseServiceServicer):
    def __init__(self, *, manifest_digest: bytes, now: Callable[[], float]) -> None:
        self.manifest_digest = manifest_digest
        self.now = now
        self.lifetime = 600
        self.next: deque[Refusal | Callable[[Any], Any]] = deque()
        """What becomes of the next calls: a refusal, or a change to the answer."""
        self.calls: list[tuple[str, Any]] = []
        self.nonce = os.urandom(NONCE_SIZE)
        self.signing_key = b""
        self.reports: list[tuple[int, list[AssetUse]]] = []
        self.renewals: dict[bytes, pb.RenewLeaseResponse] = {}

    def begin(self, name: str, request: Any, context: grpc.ServicerContext) -> Callable[[Any], Any]:
        self.calls.append((name, request))
        step = self.next.popleft() if self.next else None
        if isinstance(step, Refusal):
            refuse(context, step)
        return step if callable(step) else (lambda answer: answer)

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def GetChallenge(self, request, context):  # noqa: N802 - the service's name
        change = self.begin("GetChallenge", request, context)
        return change(attestation_pb.GetChallengeResponse(nonce=self.nonce, broker=BROKER))

    def Appraise(self, request, context):  # noqa: N802 - the service's name
        change = self.begin("Appraise", request, context)
        if request.HasField("evidence"):
            self.cnf = self.judge(request.evidence, grant=None, lease_id="").signing_key
        return change(attestation_pb.AppraiseResponse(attestation_result="ear", node_id=NODE, next_nonce=self.nonce))

    def judge(self, evidence, *, grant: bytes | None, lease_id: str) -> RuntimeData:
        """The binding checks of docs/protocol.md, as a broker makes them."""
        data = RuntimeData.parse(evidence.runtime_data)
        assert data.broker == BROKER
        assert data.nonce == self.nonce
        assert data.grant == grant_digest(grant)
        assert data.node_id == NODE
        assert data.lease_id == lease_id
        assert evidence.cpu.data == b"cpu:" + data.report_data()
        assert data.devices == tuple(
            device_evidence_digest(slot=e.slot, scheme=e.scheme, data=e.data, certificates=tuple(e.certificates))
            for e in evidence.devices
        )
        expected = device_nonce(
            nonce=data.nonce,
            grant=data.grant,
            node_id=data.node_id,
            hpke_key=data.hpke_key,
            signing_key=data.signing_key,
        )
        assert all(device.data == b"gpu:" + expected for device in evidence.devices)
        return data

    def lease(self, assets) -> pb.Lease:
        lease = pb.Lease(lease_id="lease-1", job_uid="slurm:1", node_id=NODE, assets=assets, policy_digest=POLICY)
        lease.expire_time.FromSeconds(int(self.now()) + self.lifetime)
        return lease

    def receipt(self) -> pb.Receipt:
        return pb.Receipt(origin="log.example", entry_hash=bytes(32), key_id="00", signature=bytes(64))

    def AcquireLease(self, request, context):  # noqa: N802 - the service's name
        change = self.begin("AcquireLease", request, context)
        self.grant = request.grant.grant
        refs = [AssetRef(ref.asset, ref.version) for ref in request.assets]
        if request.HasField("passport"):
            passport = request.passport
            assert passport.nonce == self.nonce
            message = passport_message(
                ear="ear",
                nonce=self.nonce,
                grant=grant_digest(self.grant),
                assets=asset_list_digest(refs),
                hpke_key=passport.hpke_key,
            )
            Ed25519PublicKey.from_public_bytes(self.cnf).verify(passport.signature, message)
            self.signing_key, self.hpke_key, transcript = self.cnf, passport.hpke_key, sha256(message)
        else:
            data = self.judge(request.evidence, grant=self.grant, lease_id="")
            assert data.assets == asset_list_digest(refs)
            self.signing_key, self.hpke_key = data.signing_key, data.hpke_key
            transcript = sha256(request.evidence.runtime_data)
        self.nonce = os.urandom(NONCE_SIZE)
        keys = [
            pb.WrappedKey(
                asset=ref,
                key_id="8" * 16 if ref.asset != REF.asset else key_id_of_key(),
                ciphertext=hpke_seal(
                    KEY,
                    public_key=self.hpke_key,
                    info=hpke_info(
                        transcript=transcript,
                        lease_id="lease-1",
                        ref=AssetRef(ref.asset, ref.version),
                        key_id="8" * 16 if ref.asset != REF.asset else key_id_of_key(),
                        policy_digest=POLICY,
                    ),
                ),
                manifest_digest=self.manifest_digest,
            )
            for ref in request.assets
        ]
        return change(
            pb.AcquireLeaseResponse(
                lease=self.lease(request.assets),
                keys=keys,
                obligations=[pb.Obligation(code="zeroise_on_end", params="{}")],
                attestation_result="ear",
                receipt=self.receipt(),
                next_nonce=self.nonce,
            )
        )

    def RenewLease(self, request, context):  # noqa: N802 - the service's name
        change = self.begin("RenewLease", request, context)
        data = self.judge(request.evidence, grant=self.grant, lease_id="lease-1")
        assert (data.hpke_key, data.signing_key) == (self.hpke_key, self.signing_key)
        self.nonce = os.urandom(NONCE_SIZE)
        first = next(call for name, call in self.calls if name == "AcquireLease")
        return change(
            pb.RenewLeaseResponse(
                lease=self.lease(first.assets), attestation_result="ear2", receipt=self.receipt(), next_nonce=self.nonce
            )
        )

    def ReportUsage(self, request, context):  # noqa: N802 - the service's name
        change = self.begin("ReportUsage", request, context)
        uses = [
            AssetUse(
                ref=AssetRef(use.asset.asset, use.asset.version),
                bytes_opened=use.bytes_opened,
                tokens_served=use.tokens_served,
                bytes_served=use.bytes_served,
            )
            for use in request.uses
        ]
        message = usage_report_message(lease_id=request.lease_id, sequence=request.sequence, uses=uses)
        Ed25519PublicKey.from_public_bytes(self.signing_key).verify(request.signature, message)
        self.reports.append((request.sequence, uses))
        return change(pb.ReportUsageResponse(sequence=request.sequence))

    def ReturnLease(self, request, context):  # noqa: N802 - the service's name
        change = self.begin("ReturnLease", request, context)
        message = lease_return_message(lease_id=request.lease_id, zeroised=request.zeroised)
        Ed25519PublicKey.from_public_bytes(self.signing_key).verify(request.signature, message)
        return change(pb.ReturnLeaseResponse(receipt=self.receipt()))


def key_id_of_key() -> str:
    from sealed.format import key_id

    return key_id(KEY)


class FakeCollector:
    """Devices that sign whatever they are given, each time a little differently, as real ones do."""

    def __init__(self) -> None:
        self.count = 0

    def cpu(self, report_data: bytes) -> Evidence:
        self.count += 1
        return Evidence(slot="cpu0", scheme="snp", data=b"cpu:" + report_data, certificates=(b"vcek", b"ask"))

    def devices(self, nonce: bytes) -> tuple[Evidence, ...]:
        return tuple(
            Evidence(slot=f"gpu{i}", scheme="nvgpu", data=b"gpu:" + nonce, certificates=(b"%d" % i,)) for i in range(2)
        )


class Clock:
    """Both clocks of a lease, moved by hand."""

    def __init__(self) -> None:
        self.wall, self.mono = 1_800_000_000.0, 50.0

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.mono += seconds


def certificate(
    name: str, key: EllipticCurvePrivateKey, *, issuer: x509.Certificate | None, issuer_key: EllipticCurvePrivateKey
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(issuer_key, SHA256())
    )


@dataclass(frozen=True)
class Pki:
    ca: bytes
    server: tuple[bytes, bytes]
    node: TlsMaterial = field(repr=False)


def make_pki() -> Pki:
    ca_key = generate_private_key(SECP256R1())
    ca = certificate("ca", ca_key, issuer=None, issuer_key=ca_key)

    def leaf(name: str) -> tuple[bytes, bytes]:
        key = generate_private_key(SECP256R1())
        pem = certificate(name, key, issuer=ca, issuer_key=ca_key).public_bytes(Encoding.PEM)
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), pem

    root = ca.public_bytes(Encoding.PEM)
    key, chain = leaf("node")
    return Pki(root, leaf("localhost"), TlsMaterial(ca=root, certificate=chain, key=key))
