#!/usr/bin/env python3
"""A node without the hardware: simulated CPU and GPUs, for trying Keystead out and for rehearsals.

::

    simulated_node.py make DIR NODE [--gpus N]    simulated vendors and one node, with the files that a broker needs
    simulated_node.py evidence DIR NODE OUT …     one piece of evidence of each device, to verify by hand
    simulated_node.py run DIR NODE --profile FILE --grant-file FILE --sealed FOLDER

`run` is what a job does on a node: it attests, gets the lease and the key in one round trip, opens the sealed files in
memory and returns the lease. On real hardware ``NodeCollector(ConfigfsTsm(), Nvml())`` stands in the place of
`SimulatedCollector`, and nothing else changes. Needs ``keystead[attester]``.
"""

from __future__ import annotations

import argparse
import json
import os
import ssl
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import attester
from attestation.reference.document import instant
from attestation.simulator.node import SimulatedNode, SimulatedVendors
from attestation.simulator.snp import CURRENT_TCB
from attestation.snp.abi import Product
from attestation.types import Evidence

PRODUCT = Product.GENOA


@dataclass(frozen=True, slots=True)
class SimulatedCollector:
    """What collects evidence on this node; `attester.Collector`."""

    hardware: SimulatedNode

    def cpu(self, report_data: bytes) -> Evidence:
        """An SEV-SNP report over `report_data` (64 bytes)."""
        return self.hardware.cpu_evidence(report_data)

    def devices(self, nonce: bytes) -> tuple[Evidence, ...]:
        """SPDM measurements of every GPU over `nonce` (32 bytes)."""
        return self.hardware.device_evidence(nonce)


def node(directory: Path, name: str, *, now: int) -> tuple[SimulatedVendors, SimulatedNode]:
    """The vendors saved in `directory`, and the node called `name` with as many GPUs as `make` gave it."""
    vendors = SimulatedVendors.load_or_generate(directory / "vendors", now=now, seed=os.urandom(32))
    devices = json.loads((directory / f"{name}.json").read_text())
    return vendors, vendors.node(name, now=now, gpus=len(devices) - 1, product=PRODUCT)


def make(directory: Path, name: str, *, gpus: int, now: int) -> None:
    """Write roots, a revocation list, reference values, and the node's identities for `keystead node enrol --file`."""
    directory.mkdir(parents=True, exist_ok=True)
    vendors = SimulatedVendors.load_or_generate(directory / "vendors", now=now, seed=os.urandom(32))
    (directory / "amd.der").write_bytes(vendors.amd.certificates[PRODUCT].ark)
    (directory / "amd.crl").write_bytes(vendors.amd.crl(PRODUCT, this_update=now))
    (directory / "nvidia.der").write_bytes(vendors.nvidia.root_der)
    tcb = CURRENT_TCB[PRODUCT]
    (directory / "reference.toml").write_text(
        # A demonstration outlives the table of advisories that it is shown with.
        f'advisories_grace = 315360000\n\n[about]\nissuer = "simulated"\nserial = 1\nissued = "{instant(now)}"\n\n'
        f'[snp]\npolicy_allowed = ["SMT"]\n\n[snp.minimum_tcb.{PRODUCT.value}]\n'
        f"bl = {tcb.bl}\ntee = {tcb.tee}\nsnp = {tcb.snp}\nucode = {tcb.ucode}\n\n"
        '[nvgpu]\nproducts = ["GH100"]\nmodes = ["spt"]\n'
    )
    hardware = vendors.node(name, now=now, gpus=gpus, product=PRODUCT)
    devices = {slot: f"{identity.kind}:{identity.value}" for slot, identity in hardware.identities().items()}
    (directory / f"{name}.json").write_text(json.dumps(devices, indent=2) + "\n")


def write_evidence(directory: Path, name: str, out: Path, *, report_data: bytes, nonce: bytes, now: int) -> None:
    """Write each device's evidence to ``SLOT.bin`` and its certificates, leaf first, to ``SLOT.pem``."""
    _, hardware = node(directory, name, now=now)
    out.mkdir(parents=True, exist_ok=True)
    for each in (hardware.cpu_evidence(report_data), *hardware.device_evidence(nonce)):
        (out / f"{each.slot}.bin").write_bytes(each.data)
        (out / f"{each.slot}.pem").write_text("".join(map(ssl.DER_cert_to_PEM_cert, each.certificates)))


def run(directory: Path, name: str, *, profile: Path, grant_file: Path, sealed: Path, now: int) -> None:
    """Attest, get a lease and its keys, open every sealed file in memory, return the lease."""
    settings = tomllib.loads(profile.read_text())
    tls = attester.TlsMaterial.from_files(
        ca=profile.parent / settings["ca"],
        certificate=profile.parent / settings["certificate"],
        key=profile.parent / settings["key"],
    )
    file = attester.GrantFile.read(grant_file)
    grant, assets = file.signed, file.signed.content.assets
    collector = SimulatedCollector(node(directory, name, now=now)[1])
    with (
        attester.BrokerClient(settings["address"], tls=tls) as client,
        attester.acquire(client, collector, grant=grant, nonce=file.nonce, assets=assets, node_id=name) as lease,
        attester.LeaseKeeper(lease),
    ):
        sys.stdout.write(f"lease {lease.terms.lease_id} until {time.ctime(lease.terms.expires_at)}\n")
        for ref in assets:
            for file in lease.manifest(ref, sealed).files:
                with lease.open(ref, sealed, file.name) as reader, reader.file() as plaintext:
                    sys.stdout.write(f"{ref} {file.name}: {len(plaintext.read())} bytes opened in memory\n")
    sys.stdout.write("key erased, lease returned\n")


def main() -> int:
    """Parse the command line; 0 done, 1 refused with every reason on standard error."""
    parser = argparse.ArgumentParser(description="A simulated Keystead node.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("make", "evidence", "run"):
        sub = commands.add_parser(command)
        sub.add_argument("directory", type=Path)
        sub.add_argument("node")
        if command == "make":
            sub.add_argument("--gpus", type=int, default=2)
        elif command == "evidence":
            sub.add_argument("out", type=Path)
            sub.add_argument("--report-data", type=bytes.fromhex, required=True, help="64 bytes in hex")
            sub.add_argument("--nonce", type=bytes.fromhex, required=True, help="32 bytes in hex")
        else:
            for option in ("--profile", "--grant-file", "--sealed"):
                sub.add_argument(option, type=Path, required=True)
    given, now = vars(parser.parse_args()), int(time.time())
    command, directory, name = given.pop("command"), given.pop("directory"), given.pop("node")
    if command == "make":
        make(directory, name, now=now, **given)
    elif command == "evidence":
        write_evidence(directory, name, given.pop("out"), now=now, **given)
    else:
        try:
            run(directory, name, now=now, **given)
        except attester.AccessDeniedError as error:
            for reason in error.reasons:
                sys.stderr.write(f"{reason.code} ({reason.field}): {reason.actual}; {reason.remedy}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
