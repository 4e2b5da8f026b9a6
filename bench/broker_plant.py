"""A real broker with two enrolled simulated nodes, and requests made beforehand, for `bench.broker_bench`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from attestation.composite import NodeEvidence
from attestation.reference.signature import REFERENCE_VALUES_TYPE, load_private_key, sign_detached
from attestation.simulator.node import SimulatedNode, SimulatedVendors
from attester.collect.simulated import SimulatedCollector
from attester.handshake import collect_evidence
from bench.attestation_bench import CACHE
from keybroker import assets, challenge, estate, jobs, release
from keybroker.broker import Broker
from keybroker.config import BrokerConfig
from keybroker.constraints import Areas, Constraints
from keybroker.grants import SignedGrant
from keybroker.initialise import REFERENCE_KEY, Installation, initialise
from keybroker.keys.signing import SigningKey
from keybroker.principals import Principal, Role
from keybroker.release import Granted
from keybroker.services.convert import grant_message, node_evidence
from keybroker.site_record import SiteRecord
from keybroker.store.schema import AssetKind
from keystead.binding import AssetRef, HpkePrivateKey, grant_digest
from keystead.cli.demo.factory import reference_values
from keystead.v1 import asset_ref_pb2, lease_service_pb2

NODE = Principal(Role.NODE, "node", None)
OPERATOR = Principal(Role.OPERATOR, "operator", None)
OWNER = Principal(Role.OWNER, "owner", "acme")
SCHEDULER = Principal(Role.SCHEDULER, "scheduler", "acme")
ASSET = AssetRef("acme/llama", 1)
AUTHORITIES = {name: SigningKey.generate() for name in ("facility", "legal")}
"""The two parties that sign for the site."""

GPUS = {"node-1": 1, "node-8": 8}
"""The nodes by name, and how many GPUs each has."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of one node for one key, under a job of its own.

    Attributes:
        message: as it goes over the wire.
        signed: the job's grant.
        evidence: of the node.
        runtime_data: what the CPU evidence vouches for.
    """

    message: lease_service_pb2.AcquireLeaseRequest
    signed: SignedGrant
    evidence: NodeEvidence
    runtime_data: bytes


@dataclass(frozen=True, slots=True)
class Plant:
    """A broker and what it knows."""

    installation: Installation
    broker: Broker
    vendors: SimulatedVendors
    nodes: dict[str, SimulatedNode]

    def request(self, node_id: str) -> Request:
        """Open a job and collect the node's evidence for it: everything that comes before the request."""
        broker, now = self.broker, self.broker.clock()
        authorized = jobs.authorize(
            broker,
            caller=SCHEDULER,
            job_uid=f"slurm:{secrets.token_hex(8)}",
            refs=[ASSET],
            purposes=["inference"],
            node_ids=[],
            site_ids=[],
            node_ceiling=8,
            not_after=now + 86_400,
        )
        signed = broker.commit(authorized.commit)
        nonce = challenge.issue(broker.epochs, grant=grant_digest(signed.grant), broker=broker.name, now=now).nonce
        collected = collect_evidence(
            SimulatedCollector(self.nodes[node_id]),
            hpke_key=HpkePrivateKey.generate().public_key,
            signing_key=secrets.token_bytes(32),
            broker=broker.name,
            nonce=nonce,
            grant=signed.grant,
            node_id=node_id,
            assets=[ASSET],
        )
        message = lease_service_pb2.AcquireLeaseRequest(
            grant=grant_message(signed),
            assets=[asset_ref_pb2.AssetRef(asset=ASSET.asset, version=ASSET.version)],
            evidence=collected.message,
        )
        return Request(message, signed, node_evidence(collected.message), collected.message.runtime_data)

    def acquire(self, request: Request) -> Granted:
        """What the adapter does with a request, without the wire."""
        return release.acquire(
            self.broker,
            signed=request.signed,
            refs=[ASSET],
            evidence=request.evidence,
            runtime_data=request.runtime_data,
            passport=None,
            caller=NODE,
        )


@contextmanager
def plant(folder: Path, *, now: int, database: str | None = None) -> Iterator[Plant]:
    """Install a broker in `folder`, enrol its nodes, register one asset; closed at the end.

    Args:
        folder: does not exist yet.
        now: seconds since the epoch.
        database: an empty PostgreSQL database's URL; SQLite in `folder` where None.
    """
    vendors = SimulatedVendors.load_or_generate(CACHE, now=now, seed=bytes(32))
    installation = initialise(
        folder,
        name="bench",
        trust_domain="bench.test",
        tenants=["acme"],
        database=database,
        authorities={name: key.public_pem() for name, key in AUTHORITIES.items()},
        now=now,
    )
    trust(installation, vendors, now=now)
    broker = Broker.open(BrokerConfig.load(folder))
    try:
        nodes = {name: vendors.node(name, now=now, gpus=gpus) for name, gpus in GPUS.items()}
        record = SiteRecord.read(
            {
                "site": "fra-1",
                "serial": 1,
                "jurisdiction": "FR",
                "facility": "hall 1",
                "operator": {"name": "Factory", "jurisdiction": "FR", "lei": None},
                "controllers": [],
                "certifications": [],
                "network_zone": "",
                "valid_from": now,
                "valid_until": now + 30 * 86_400,
            }
        ).statement(author="operator")
        broker.commit(
            lambda connection: estate.enrol_site(
                connection,
                caller=OPERATOR,
                statement=record.payload,
                signatures=[record.sign(key.private_key, signer=name) for name, key in AUTHORITIES.items()],
                authorities=broker.authorities,
                known_places=broker.policies.known_places(),
                now=now,
            )
        )
        for name, node in nodes.items():
            devices = [
                estate.Device(slot=slot, kind=identity.kind, value=identity.value)
                for slot, identity in node.identities().items()
            ]
            row = estate.check_node(node_id=name, site_id="fra-1", devices=devices, now=now)
            enrol = partial(estate.enrol_node, caller=OPERATOR, row=row)
            broker.commit(enrol)
        broker.commit(
            lambda connection: assets.register(
                connection,
                caller=OWNER,
                asset=ASSET.asset,
                kind=AssetKind.MODEL,
                constraints=Constraints(
                    classification=4, purposes=frozenset({"inference"}), residency=Areas.of(["EU"])
                ),
                jurisdictions=broker.policies.jurisdictions,
                now=now,
            )
        )
        broker.commit(
            lambda connection: assets.add_version(
                connection,
                broker=broker,
                caller=OWNER,
                ref=ASSET,
                key_id="k1",
                data_key=os.urandom(32),
                manifest_digest=bytes(32),
                now=now,
            )
        )
        yield Plant(installation, broker, vendors, nodes)
    finally:
        broker.close()


def trust(installation: Installation, vendors: SimulatedVendors, *, now: int) -> None:
    """Make the installation trust the simulators, and only accept what sound simulated nodes are."""
    folder = installation.directory
    amd = {f"ark-{product.value}.der": chain.ark for product, chain in vendors.amd.certificates.items()}
    crls = {f"{number}.crl": crl for number, crl in enumerate(vendors.collateral(this_update=now - 60).crls)}
    for name, data in (amd | crls | {"nvidia.der": vendors.nvidia.root_der}).items():
        (folder / name).write_bytes(data)
    values = reference_values(now=now).encode("utf-8")
    key = load_private_key((folder / REFERENCE_KEY).read_bytes(), name=REFERENCE_KEY)
    (folder / "reference.toml").write_bytes(values)
    (folder / "reference.toml.jws").write_text(sign_detached(values, key=key, kind=REFERENCE_VALUES_TYPE), "ascii")
    text = installation.config.read_text("utf-8")
    for old, new in (
        ("simulated_amd_roots = []", f"simulated_amd_roots = {toml(amd)}"),
        ("simulated_nvidia_roots = []", 'simulated_nvidia_roots = ["nvidia.der"]'),
        ("crls = []", f"crls = {toml(crls)}"),
        ("[policy.settings]", "[policy.settings]\nallow_simulated = true"),
    ):
        if old not in text:
            raise RuntimeError(f"the configuration has no line {old!r}")
        text = text.replace(old, new)
    installation.config.write_text(text, "utf-8")


def toml(names: dict[str, bytes]) -> str:
    """Names as a TOML array."""
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
