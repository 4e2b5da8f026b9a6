"""Fixtures of the node's side: a broker over mutual TLS, a sealed asset, a grant."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attester.client import BrokerClient
from attester.handshake import SignedGrant
from keystead.binding import JobGrant, sha256
from keystead.v1 import job_service_pb2 as job_pb
from keystead.v1.attestation_service_pb2_grpc import add_AttestationServiceServicer_to_server
from keystead.v1.lease_service_pb2_grpc import add_LeaseServiceServicer_to_server
from sealed.asset import collect_sources, seal_asset
from tests.unit.attester.fake_broker import BROKER, KEY, OTHER, REF, Clock, FakeBroker, FakeCollector, Pki, make_pki


@pytest.fixture(scope="session")
def pki() -> Pki:
    return make_pki()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sealed asset of two files."""
    source = tmp_path / "model"
    source.mkdir()
    (source / "config.json").write_bytes(b"{}")
    (source / "weights.bin").write_bytes(b"weights" * 1000)
    seal_asset(
        collect_sources((source,)), tmp_path / "sealed", ref=REF, key=KEY, signing_key=Ed25519PrivateKey.generate()
    )
    return tmp_path / "sealed"


@pytest.fixture
def broker(folder: Path, clock: Clock) -> FakeBroker:
    return FakeBroker(manifest_digest=sha256((folder / "manifest.json").read_bytes()), now=lambda: clock.wall)


@pytest.fixture
def address(broker: FakeBroker, pki: Pki) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4))
    add_AttestationServiceServicer_to_server(broker, server)
    add_LeaseServiceServicer_to_server(broker, server)
    credentials = grpc.ssl_server_credentials([pki.server], root_certificates=pki.ca, require_client_auth=True)
    port = server.add_secure_port("localhost:0", credentials)
    server.start()
    yield f"localhost:{port}"
    server.stop(None).wait()


@pytest.fixture
def client(address: str, pki: Pki) -> Iterator[BrokerClient]:
    with BrokerClient(address, tls=pki.node, timeout=10) as made:
        yield made


@pytest.fixture
def collector() -> FakeCollector:
    return FakeCollector()


@pytest.fixture
def grant() -> SignedGrant:
    content = JobGrant(
        broker=BROKER,
        grant_id="grant-1",
        tenant="acme",
        job_uid="slurm:1",
        scheduler="slurm",
        assets=(OTHER, REF),
        purposes=("inference",),
        nodes=(),
        sites=(),
        node_ceiling=2,
        not_before=1_800_000_000,
        not_after=1_800_100_000,
    )
    return SignedGrant.from_proto(job_pb.JobGrant(grant=content.to_bytes(), signature=bytes(64), key_id="k"))
