"""What tests that attack the broker share: raw calls, what a refusal says, evidence made by hand, certificates."""

from __future__ import annotations

import datetime as dt
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from factory import Factory
from google.rpc import error_details_pb2, status_pb2
from sqlalchemy import func, select

from attestation.simulator.node import SimulatedNode
from attester.collect.simulated import SimulatedCollector
from attester.handshake import collect_evidence
from keybroker import pki
from keybroker.principals import Principal
from keybroker.store.schema import METADATA
from keystead.binding import AssetRef, HpkePrivateKey
from keystead.v1 import asset_ref_pb2, denial_pb2, evidence_pb2, lease_service_pb2

PROTOS = Path(__file__).resolve().parents[2] / "protos" / "keystead" / "v1"
SERVICES = (
    "asset",
    "attestation",
    "audit",
    "declassification",
    "job",
    "lease",
    "lineage",
    "node",
    "placement",
    "site",
)
ROLES = ("owner", "scheduler", "node", "operator", "auditor")


@dataclass(frozen=True)
class Rpc:
    """One RPC of the contract.

    Attributes:
        service: `factory.Stubs`'s name of the service.
        name: the RPC's.
        request: the class of its request.
        roles: who may call it, as the comments of the contract say.
        streams: it answers with several messages.
        takes: it takes several messages.
    """

    service: str
    name: str
    request: type[Any]
    roles: frozenset[str]
    streams: bool = False
    takes: bool = False

    def __str__(self) -> str:
        return self.name

    def call(self, stubs: Any, request: Any, **options: Any) -> Any:
        """Call it."""
        given = iter([request]) if self.takes else request
        answer = getattr(getattr(stubs, self.service), self.name)(given, **options)
        return list(answer) if self.streams else answer


def _roles(comment: str) -> frozenset[str]:
    said = re.search(r"\bRole: ([^.;,]*)", comment)
    if said is None:
        return frozenset()
    return frozenset(ROLES) if "any" in said[1].split() else frozenset(said[1].split()) & frozenset(ROLES)


def contract() -> list[Rpc]:
    """Every RPC, with the roles that the comments in ``protos/`` give it or its service."""
    found = []
    for name in SERVICES:
        text = (PROTOS / f"{name}_service.proto").read_text()
        match = re.search(r"((?://.*\n)+)service \w+ \{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE)
        assert match, name
        of_service = _roles(re.sub(r"\n\s*// ", " ", match[1]))
        module = importlib.import_module(f"keystead.v1.{name}_service_pb2")
        for comment, rpc, takes, request, streams in re.findall(
            r"((?: *//.*\n)*) *rpc (\w+)\((stream )?(\w+)\) returns \((stream )?", match[2]
        ):
            roles = _roles(re.sub(r"\n\s*// ", " ", comment)) or of_service
            assert roles, f"{rpc}: the contract does not say who may call it"
            found.append(
                Rpc(
                    "attestation" if name == "attestation" else _PLURAL[name],
                    rpc,
                    getattr(module, request),
                    roles,
                    streams=bool(streams),
                    takes=bool(takes),
                )
            )
    return found


_PLURAL = {
    "asset": "assets",
    "audit": "audit",
    "declassification": "declassifications",
    "job": "jobs",
    "lease": "leases",
    "lineage": "lineage",
    "node": "nodes",
    "placement": "placement",
    "site": "sites",
}

CONTRACT = contract()


@dataclass(frozen=True)
class Refusal:
    """What a refused call says."""

    status: grpc.StatusCode
    reason: str
    message: str
    field: str
    denied: tuple[str, ...]
    size: int


def refusal(call: Callable[[], Any]) -> Refusal:
    """The refusal of `call`, which must have exactly one `ErrorInfo` of this product."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return read_refusal(caught.value)


def read_refusal(error: Any) -> Refusal:
    """A failed call's status, reason and denial."""
    trailers = dict(error.trailing_metadata() or ())
    assert "grpc-status-details-bin" in trailers, (error.code(), error.details())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert status.message == error.details()
    assert status.code == error.code().value[0]
    info, denial = error_details_pb2.ErrorInfo(), denial_pb2.Denial()
    infos = [detail for detail in status.details if detail.Is(info.DESCRIPTOR)]
    assert len(infos) == 1
    infos[0].Unpack(info)
    assert info.domain == "keystead"
    assert re.fullmatch(r"[A-Z][A-Z0-9_]*", info.reason)
    for detail in status.details:
        if detail.Is(denial.DESCRIPTOR):
            detail.Unpack(denial)
    for hint in ("Traceback", 'File "', "sqlalchemy", "psycopg", "sqlite3"):
        assert hint not in error.details()
    return Refusal(
        error.code(),
        info.reason,
        error.details(),
        info.metadata.get("field", ""),
        tuple(reason.code for reason in denial.reasons),
        sum(len(name) + len(value) + 32 for name, value in trailers.items()) + len(error.details()),
    )


def rows(factory: Factory) -> dict[str, int]:
    """How many rows each table has, but for the log's own bookkeeping and the sweep's."""
    with factory.broker.read() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in METADATA.sorted_tables
            if not table.name.startswith(("audit_checkpoint", "audit_tile", "audit_node", "audit_hash", "clock_"))
        }


@dataclass
class Session:
    """The two key pairs of a node's session."""

    hpke: HpkePrivateKey = field(default_factory=HpkePrivateKey.generate)
    signing: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def signing_key(self) -> bytes:
        """The public half."""
        return self.signing.public_key().public_bytes_raw()


def evidence(
    factory: Factory,
    node_id: str,
    *,
    nonce: bytes,
    grant: bytes | None,
    refs: tuple[AssetRef, ...] = (),
    lease_id: str = "",
    session: Session | None = None,
    node: SimulatedNode | None = None,
    hpke_key: bytes | None = None,
    claimed: str | None = None,
) -> evidence_pb2.NodeEvidence:
    """Evidence as a node makes it, for keys that the test holds."""
    session = session or Session()
    return collect_evidence(
        SimulatedCollector(node or factory.nodes[node_id]),
        hpke_key=hpke_key or session.hpke.public_key,
        signing_key=session.signing_key,
        broker="keys",
        nonce=nonce,
        grant=grant,
        node_id=claimed or node_id,
        assets=refs,
        lease_id=lease_id,
    ).message


def acquire_request(
    factory: Factory, node_id: str, authorized: Any, *refs: AssetRef, **changes: Any
) -> lease_service_pb2.AcquireLeaseRequest:
    """What a node sends to acquire a lease."""
    return lease_service_pb2.AcquireLeaseRequest(
        grant=authorized.grant,
        assets=[asset_ref_pb2.AssetRef(asset=ref.asset, version=ref.version) for ref in refs],
        evidence=evidence(
            factory,
            node_id,
            nonce=changes.pop("nonce", authorized.nonce),
            grant=authorized.grant.grant,
            refs=refs,
            **changes,
        ),
    )


def authority(factory: Factory) -> pki.Issued:
    """The installation's own certificate authority."""
    folder = factory.installation.directory / "tls"
    return pki.load_ca(folder / "ca.pem", folder / "ca.key")


def add_client(factory: Factory, principal: Principal, *, trust_domain: str = "factory.test") -> str:
    """Issue a client certificate; returns the name of its profile."""
    profile = f"extra-{principal.key.replace('/', '-')}-{trust_domain}"
    folder = factory.installation.directory / "clients"
    if not (folder / f"{profile}.pem").exists():
        issued = pki.issue_client(authority(factory), principal, trust_domain=trust_domain, now=factory.clock())
        issued.write(folder / f"{profile}.pem", folder / f"{profile}.key")
    return profile


def add_certificate(
    factory: Factory, profile: str, names: list[x509.GeneralName], *, issuer: pki.Issued | None = None
) -> str:
    """Issue a client certificate with any names, by the installation's authority or another."""
    ca = issuer or authority(factory)
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.fromtimestamp(factory.clock(), tz=dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, profile)]))
        .issuer_name(ca.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    folder = factory.installation.directory / "clients"
    (folder / f"{profile}.pem").write_bytes(builder.sign(ca.key, hashes.SHA256()).public_bytes(Encoding.PEM))
    (folder / f"{profile}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return profile
