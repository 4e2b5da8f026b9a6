"""Pytest plugin: a whole factory in one process: a real broker behind mutual TLS, simulated hardware, clients.

Nothing of the product is replaced: the simulators' roots are trusted because the configuration names them.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Connection, select

import attester
from attestation.reference.signature import REFERENCE_VALUES_TYPE, load_private_key, sign_detached
from attestation.simulator.node import SimulatedNode, SimulatedVendors
from attestation.simulator.snp import CURRENT_TCB
from attestation.snp.abi import Product
from attester.collect.simulated import SimulatedCollector
from audit.payload import KEYED_ENTRY, PAYLOAD_COLUMNS, PayloadReader
from audit.records import Record
from audit.tables import AUDIT_ENTRY
from keybroker.broker import Broker
from keybroker.config import BrokerConfig
from keybroker.initialise import Installation, initialise
from keybroker.keys.signing import SigningKey
from keybroker.services.server import Server
from keybroker.site_record import SiteRecord
from keybroker.statements import Statement
from keystead.binding import AssetRef, hpke_seal, owner_key_info
from keystead.v1 import (
    asset_ref_pb2,
    asset_service_pb2,
    asset_service_pb2_grpc,
    attestation_service_pb2_grpc,
    audit_service_pb2_grpc,
    constraints_pb2,
    declassification_service_pb2_grpc,
    job_service_pb2,
    job_service_pb2_grpc,
    lease_service_pb2_grpc,
    lineage_service_pb2_grpc,
    node_service_pb2,
    node_service_pb2_grpc,
    placement_service_pb2_grpc,
    site_service_pb2,
    site_service_pb2_grpc,
)

REFERENCE = """
advisories_grace = 315360000  # the tests outlive the shipped table
[about]
issuer = "tests"
serial = 2
issued = "2026-01-01T00:00:00Z"

[snp]
policy_allowed = ["SMT"]

[snp.minimum_tcb.Milan]
{milan}
[snp.minimum_tcb.Genoa]
{genoa}
[snp.minimum_tcb.Turin]
{turin}
[nvgpu]
products = ["GH100", "GB100"]
modes = ["spt", "mpt", "ppcie"]
"""


def write_reference_values(directory: Path, text: str) -> None:
    """Replace an installation's reference values by `text`, signed with the installation's own key."""
    key = load_private_key((directory / "reference.key").read_bytes(), name="reference.key")
    (directory / "reference.toml").write_text(text)
    signature = sign_detached(text.encode(), key=key, kind=REFERENCE_VALUES_TYPE)
    (directory / "reference.toml.jws").write_text(signature)


AUTHORITIES = {name: SigningKey.generate() for name in ("facility", "legal")}
"""The two parties that sign for sites in these factories."""


def reference_toml(minimum: Any) -> str:
    """Reference values that sound simulated nodes meet."""
    tables = {
        product.value.lower(): "\n".join(f"{name} = {value}" for name, value in minimum[product].components().items())
        for product in Product
    }
    return REFERENCE.format(**tables)


class Clock:
    """A clock that tests move; it stands still while it is `stopped`."""

    def __init__(self) -> None:
        self.offset = 0
        self.stopped: int | None = None

    def __call__(self) -> int:
        return (int(time.time()) if self.stopped is None else self.stopped) + self.offset


@dataclass
class Stubs:
    """Every service over one channel."""

    channel: grpc.Channel
    assets: Any = field(init=False)
    attestation: Any = field(init=False)
    audit: Any = field(init=False)
    declassifications: Any = field(init=False)
    jobs: Any = field(init=False)
    leases: Any = field(init=False)
    lineage: Any = field(init=False)
    nodes: Any = field(init=False)
    placement: Any = field(init=False)
    sites: Any = field(init=False)

    def __post_init__(self) -> None:
        self.assets = asset_service_pb2_grpc.AssetServiceStub(self.channel)
        self.attestation = attestation_service_pb2_grpc.AttestationServiceStub(self.channel)
        self.audit = audit_service_pb2_grpc.AuditServiceStub(self.channel)
        self.declassifications = declassification_service_pb2_grpc.DeclassificationServiceStub(self.channel)
        self.jobs = job_service_pb2_grpc.JobServiceStub(self.channel)
        self.leases = lease_service_pb2_grpc.LeaseServiceStub(self.channel)
        self.lineage = lineage_service_pb2_grpc.LineageServiceStub(self.channel)
        self.nodes = node_service_pb2_grpc.NodeServiceStub(self.channel)
        self.placement = placement_service_pb2_grpc.PlacementServiceStub(self.channel)
        self.sites = site_service_pb2_grpc.SiteServiceStub(self.channel)


def request_id() -> str:
    """A fresh request id."""
    return str(uuid.uuid4())


@dataclass
class Remote:
    """A broker somewhere, with clients of every role."""

    installation: Installation
    config: BrokerConfig
    vendors: SimulatedVendors
    port: int
    clock: Clock = field(default_factory=Clock)
    nodes: dict[str, SimulatedNode] = field(default_factory=dict)
    data_keys: dict[str, bytes] = field(default_factory=dict)
    _channels: list[grpc.Channel] = field(default_factory=list)

    def tls(self, profile: str) -> attester.TlsMaterial:
        """A client's TLS files."""
        folder = self.installation.directory / "clients"
        return attester.TlsMaterial.from_files(
            ca=self.installation.directory / "tls" / "ca.pem",
            certificate=folder / f"{profile}.pem",
            key=folder / f"{profile}.key",
        )

    def stubs(self, profile: str) -> Stubs:
        """A client of the broker in the role of `profile`."""
        folder = self.installation.directory
        channel = grpc.secure_channel(
            f"localhost:{self.port}",
            grpc.ssl_channel_credentials(
                (folder / "tls" / "ca.pem").read_bytes(),
                (folder / "clients" / f"{profile}.key").read_bytes(),
                (folder / "clients" / f"{profile}.pem").read_bytes(),
            ),
        )
        self._channels.append(channel)
        return Stubs(channel)

    def client(self) -> attester.BrokerClient:
        """A node's client."""
        return attester.BrokerClient(f"localhost:{self.port}", tls=self.tls("node"))

    def site_record(self, site_id: str, jurisdiction: str, *, lifetime: int = 30 * 86_400, **changes: Any) -> Statement:
        """A record of a site, not signed yet; `changes` are fields of it."""
        now = self.clock()
        body: dict[str, Any] = {
            "site": site_id,
            "serial": 1,
            "jurisdiction": jurisdiction,
            "facility": f"hall of {site_id}",
            "operator": {"name": "Factory GmbH", "jurisdiction": jurisdiction.partition("-")[0], "lei": None},
            "controllers": [],
            "certifications": [],
            "network_zone": "",
            "valid_from": now - 60,
            "valid_until": now + lifetime,
        }
        return SiteRecord.read(body | changes).statement(author="operator")

    def signed(self, statement: Statement, *signers: str) -> site_service_pb2.SignedStatement:
        """A statement that `signers` signed: both authorities where none is named."""
        return site_service_pb2.SignedStatement(
            statement=statement.payload,
            signatures=[
                statement.sign(AUTHORITIES[name].private_key, signer=name) for name in signers or sorted(AUTHORITIES)
            ],
        )

    def enrol_site(self, site_id: str, jurisdiction: str, *, lifetime: int = 30 * 86_400, **changes: Any) -> None:
        """Enrol a site under a record that two authorities signed."""
        record = self.signed(self.site_record(site_id, jurisdiction, lifetime=lifetime, **changes))
        self.stubs("operator").sites.EnrolSite(
            site_service_pb2.EnrolSiteRequest(request_id=request_id(), record=record)
        )

    def enrol_node(
        self, node_id: str, site_id: str, *, gpus: int = 1, product: Product = Product.GENOA
    ) -> SimulatedNode:
        """Make a simulated node and enrol it."""
        node = self.vendors.node(node_id, now=self.clock(), gpus=gpus, product=product)
        self.nodes[node_id] = node
        devices = [
            node_service_pb2.DeviceIdentity(slot=slot, kind=identity.kind, value=identity.value)
            for slot, identity in node.identities().items()
        ]
        self.stubs("operator").nodes.EnrolNode(
            node_service_pb2.EnrolNodeRequest(
                request_id=request_id(),
                node=node_service_pb2.Node(node_id=node_id, site_id=site_id, devices=devices),
            )
        )
        return node

    def register_asset(
        self,
        name: str = "acme/llama",
        *,
        allowed: tuple[str, ...] = ("EU",),
        forbidden: tuple[str, ...] = (),
        purposes: tuple[str, ...] = ("inference", "evaluation"),
        **constraints: Any,
    ) -> AssetRef:
        """Register an asset with one version and its data key; `constraints` are more of the message's members."""
        tenant = name.partition("/")[0]
        assets = self.stubs(f"{tenant}-owner").assets
        assets.RegisterAsset(
            asset_service_pb2.RegisterAssetRequest(
                request_id=request_id(),
                asset=name,
                kind=asset_service_pb2.ASSET_KIND_MODEL,
                constraints=constraints_pb2.Constraints(
                    **{
                        "classification": 4,
                        "purposes": {"names": purposes},
                        "residency": {"allowed": [{"areas": allowed}], "forbidden": forbidden},
                    }
                    | constraints
                ),
            )
        )
        ref = AssetRef(name, 1)
        self.add_version(ref)
        return ref

    def add_version(self, ref: AssetRef) -> None:
        """Add a version with a data key of its own."""
        assets = self.stubs(f"{ref.asset.partition('/')[0]}-owner").assets
        wrapping = assets.GetWrappingKey(asset_service_pb2.GetWrappingKeyRequest())
        data_key, key_id = os.urandom(32), f"k{ref.version}"
        self.data_keys[str(ref)] = data_key
        assets.AddAssetVersion(
            asset_service_pb2.AddAssetVersionRequest(
                request_id=request_id(),
                ref=asset_ref_pb2.AssetRef(asset=ref.asset, version=ref.version),
                key_id=key_id,
                manifest_digest=b"m" * 32,
                wrapped_key=hpke_seal(
                    data_key,
                    public_key=wrapping.hpke_key,
                    info=owner_key_info(broker=wrapping.broker, ref=ref, key_id=key_id),
                ),
            )
        )

    def authorize(self, *refs: AssetRef, job_uid: str | None = None, tenant: str = "acme", **changes: Any) -> Any:
        """Authorize a job; the whole answer."""
        request = job_service_pb2.AuthorizeJobRequest(
            request_id=request_id(),
            job_uid=job_uid or f"slurm:{uuid.uuid4()}",
            assets=[asset_ref_pb2.AssetRef(asset=ref.asset, version=ref.version) for ref in refs],
            purposes=changes.pop("purposes", ["inference"]),
            nodes=changes.pop("nodes", []),
            sites=changes.pop("sites", []),
            node_ceiling=changes.pop("node_ceiling", 8),
            expire_time=Timestamp(seconds=self.clock() + changes.pop("lifetime", 3_600)),
            **changes,
        )
        return self.stubs(f"{tenant}-scheduler").jobs.AuthorizeJob(request)

    def acquire(
        self, node_id: str, authorized: Any, *refs: AssetRef, node: SimulatedNode | None = None, **changes: Any
    ) -> Any:
        """Acquire a lease as `node_id`."""
        with self.client() as client:
            return attester.acquire(
                client,
                SimulatedCollector(node or self.nodes[node_id]),
                grant=attester.SignedGrant.from_proto(authorized.grant),
                assets=refs,
                node_id=changes.pop("claimed", node_id),
                nonce=changes.pop("nonce", authorized.nonce),
                **changes,
            )

    def close(self) -> None:
        """Close every channel."""
        for channel in self._channels:
            channel.close()
        self._channels.clear()


@dataclass
class Factory(Remote):
    """A broker in this process."""

    server: Server = field(kw_only=True)

    @property
    def broker(self) -> Broker:
        """The broker inside the server."""
        return self.server.broker

    def close(self) -> None:
        """Stop everything."""
        super().close()
        self.server.stop()


def recorded(connection: Connection, *kinds: str) -> list[Record]:
    """The log's records of some kinds, or all of them, oldest first, opened with the broker's keys."""
    statement = select(AUDIT_ENTRY.c.id, *PAYLOAD_COLUMNS).select_from(KEYED_ENTRY).order_by(AUDIT_ENTRY.c.id)
    if kinds:
        statement = statement.where(AUDIT_ENTRY.c.kind.in_(kinds))
    reader = PayloadReader(connection)
    opened = [reader.open_checked(row, f"row {row.id}").payload for row in connection.execute(statement)]
    return [Record.parse(payload) for payload in opened if payload is not None]


@pytest.fixture(scope="session")
def vendors(tmp_path_factory: pytest.TempPathFactory) -> SimulatedVendors:
    """Simulated AMD and NVIDIA, once per test run: RSA keys take their time."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (folder / "vendors.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of one run share what the first of them makes
        return SimulatedVendors.load_or_generate(
            folder / "vendors", now=int(time.time()), seed=b"integration tests".ljust(32, b"\0")
        )


@pytest.fixture
def make_factory(tmp_path: Path, vendors: SimulatedVendors) -> Iterator[Callable[..., Factory]]:
    """Makes factories; all are stopped at the end."""
    made: list[Factory] = []

    def make(*, database: str | None = None, edit: Callable[[str], str] = lambda text: text) -> Factory:
        factory = start_factory(tmp_path / f"factory{len(made)}", vendors, database=database, edit=edit)
        made.append(factory)
        return factory

    yield make
    for factory in made:
        factory.close()


def install(
    directory: Path, vendors: SimulatedVendors, *, database: str | None, edit: Callable[[str], str]
) -> Installation:
    """A first installation that trusts the simulators."""
    installation = initialise(
        directory,
        name="keys",
        trust_domain="factory.test",
        tenants=["acme", "globex"],
        database=database,
        authorities={name: key.public_pem() for name, key in AUTHORITIES.items()},
        now=int(time.time()),
    )
    names = []
    for product in Product:
        name = f"ark-{product.value}.der"
        (directory / name).write_bytes(vendors.amd.certificates[product].ark)
        names.append(name)
    (directory / "nvidia.der").write_bytes(vendors.nvidia.root_der)
    write_reference_values(directory, reference_toml(CURRENT_TCB))
    crls = []
    for number, crl in enumerate(vendors.collateral(this_update=int(time.time()) - 60).crls):
        (directory / f"crl{number}.der").write_bytes(crl)
        crls.append(f"crl{number}.der")
    text = (
        installation.config.read_text()
        .replace("simulated_amd_roots = []", f"simulated_amd_roots = {names!r}".replace("'", '"'))
        .replace("simulated_nvidia_roots = []", 'simulated_nvidia_roots = ["nvidia.der"]')
        .replace("crls = []", f"crls = {crls!r}".replace("'", '"'))
        .replace("[policy.settings]", "[policy.settings]\nallow_simulated = true")
    )
    installation.config.write_text(edit(text))
    return installation


def start_factory(
    directory: Path, vendors: SimulatedVendors, *, database: str | None, edit: Callable[[str], str]
) -> Factory:
    """Install and start a broker in this process."""
    installation = install(directory, vendors, database=database, edit=edit)
    config = BrokerConfig.load(directory)
    clock = Clock()
    server = Server(Broker.open(config, clock=clock))
    port = server.start("127.0.0.1:0")
    return Factory(installation, config, vendors, port, clock, server=server)


R = TypeVar("R", bound=Remote)


def furnish(made: R) -> R:
    """Two jurisdictions, a node with two GPUs and one with one in France, one in the United States."""
    made.enrol_site("fra-1", "FR")
    made.enrol_site("ash-1", "US")
    made.enrol_node("node-a", "fra-1", gpus=2)
    made.enrol_node("node-b", "fra-1", gpus=1)
    made.enrol_node("node-us", "ash-1", gpus=1)
    return made
