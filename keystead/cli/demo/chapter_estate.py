"""The demo, chapter 1: a broker is installed, sites and nodes are enrolled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from keybroker.initialise import Installation, initialise
from keybroker.keys.signing import SigningKey
from keybroker.site_record import SiteRecord
from keystead.cli import instants
from keystead.cli.connection import request_id
from keystead.cli.demo.factory import REFERENCE_SIGNER, REFERENCE_VALUES, SITES, Factory
from keystead.cli.demo.process import free_port
from keystead.cli.demo.stage import BROKER, TENANT, Stage
from keystead.v1 import node_service_pb2, site_service_pb2

_SITE_DAYS: Final = 365


def install(folder: Path, factory: Factory, authorities: Mapping[str, SigningKey]) -> Installation:
    """Make an installation as `keystead init` does, and let it trust the simulated hardware.

    Args:
        folder: of the story; the installation is in ``broker`` there.
        factory: the hardware.
        authorities: the parties whose signatures a site's record needs, by name.
    """
    installation = initialise(
        folder / "broker",
        name=BROKER,
        tenants=(TENANT,),
        listen=f"127.0.0.1:{free_port()}",
        authorities={name: key.public_pem() for name, key in authorities.items()},
        now=instants.now(),
    )
    amd, nvidia, crls = factory.write(installation.directory / "simulated")
    configure(installation.config, amd=amd, nvidia=nvidia, crls=crls)
    return installation


def enrol(stage: Stage, authorities: Mapping[str, SigningKey]) -> None:
    """Enrol sites and nodes, as an operator does, and show them."""
    operator, factory = stage.operator, stage.factory
    begins = instants.now()
    for site, (jurisdiction, facility, runs_it) in SITES.items():
        record = SiteRecord.read(
            {
                "site": site,
                "serial": 1,
                "jurisdiction": jurisdiction,
                "facility": facility,
                "operator": {"name": runs_it, "jurisdiction": jurisdiction, "lei": None},
                "controllers": [],
                "certifications": [],
                "network_zone": "",
                "valid_from": begins,
                "valid_until": begins + _SITE_DAYS * 86_400,
            }
        ).statement(author="operator")
        signatures = [record.sign(key.private_key, signer=name) for name, key in authorities.items()]
        operator.call(
            operator.sites.EnrolSite,
            site_service_pb2.EnrolSiteRequest(
                request_id=request_id(),
                record=site_service_pb2.SignedStatement(statement=record.payload, signatures=signatures),
            ),
        )
    for machine in factory.machines.values():
        operator.call(
            operator.nodes.EnrolNode,
            node_service_pb2.EnrolNodeRequest(
                request_id=request_id(),
                node=node_service_pb2.Node(
                    node_id=machine.node_id,
                    site_id=machine.site,
                    devices=[
                        node_service_pb2.DeviceIdentity(slot=slot, kind=identity.kind, value=identity.value)
                        for slot, identity in machine.hardware.identities().items()
                    ],
                ),
            ),
        )
    stage.narrator.says(
        "operator",
        "enrols three sites, each under a record that two parties signed, and five nodes by the identities burnt "
        "into their hardware, not by name",
    )
    stage.narrator.table(
        ("node", "site", "law", "hardware (simulated)", "CPU identity"),
        (
            (
                machine.node_id,
                machine.site,
                SITES[machine.site][0],
                machine.description,
                f"{machine.hardware.identities()['cpu0'].value[:16]}…",
            )
            for machine in factory.machines.values()
        ),
    )


def configure(config: Path, *, amd: Sequence[str], nvidia: Sequence[str], crls: Sequence[str]) -> None:
    """Tell a new installation's configuration file to trust simulated hardware, as an operator would by hand.

    Args:
        config: what `keystead init` wrote.
        amd: file names of simulated AMD roots in the folder ``simulated`` beside it.
        nvidia: the same of simulated NVIDIA roots.
        crls: the same of revocation lists.

    Raises:
        ValueError: the file is not laid out as `keystead init` lays it out.
    """
    text = config.read_text(encoding="utf-8")
    changes = {
        'reference_values = "reference.toml"': f'reference_values = "simulated/{REFERENCE_VALUES}"',
        'reference_signers = ["reference.pub"]': f'reference_signers = ["simulated/{REFERENCE_SIGNER}"]',
        "simulated_amd_roots = []": f"simulated_amd_roots = {_names(amd)}",
        "simulated_nvidia_roots = []": f"simulated_nvidia_roots = {_names(nvidia)}",
        "crls = []": f"crls = {_names(crls)}",
        "[policy.settings]\n": "[policy.settings]\nallow_simulated = true\n",
    }
    for old, new in changes.items():
        if text.count(old) != 1:
            raise ValueError(f"{config}: {text.count(old)} times {old!r}, expected once")
        text = text.replace(old, new)
    config.write_text(text, encoding="utf-8")


def _names(files: Sequence[str]) -> str:
    return json.dumps([f"simulated/{name}" for name in files])
