"""The node's side: evidence collection, broker client, leases, and the SDK that opens sealed files.

The SDK in one piece::

    import attester

    devices = attester.Devices((attester.Nvml(), attester.Nscq()))
    collector = attester.NodeCollector(attester.ConfigfsTsm(), devices)
    tls = attester.TlsMaterial.from_files(ca=…, certificate=…, key=…)
    with attester.BrokerClient("broker:8443", tls=tls) as client:
        with attester.acquire(client, collector, grant=grant, nonce=nonce, assets=[ref], node_id="ber1-n01") as lease:
            with attester.LeaseKeeper(lease), lease.open(ref, folder, "weights.safetensors") as reader:
                reader.read_into(buffer, threads=8)

Names are imported when they are first used, so that one part can be had without what the others need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from attester.client import BrokerClient, TlsMaterial
    from attester.collect.collector import Collector, Devices, NodeCollector, NoDevices
    from attester.collect.configfs_tsm import ConfigfsTsm
    from attester.collect.nscq import Nscq
    from attester.collect.nvml import Nvml
    from attester.errors import (
        AccessDeniedError,
        AttesterError,
        BrokerError,
        BrokerUnavailableError,
        CollectionError,
        LeaseEndedError,
        ObligationError,
        Reason,
    )
    from attester.grant_file import GrantFile
    from attester.handshake import SignedGrant
    from attester.keeper import LeaseKeeper
    from attester.lease import Lease, LeaseTerms, Obligation, Receipt, acquire
    from attester.output import Output, register_output
    from attester.passport import Passport, appraise
    from keystead.binding import AssetRef
    from sealed.open import SealedReader

__all__ = [
    "AccessDeniedError",
    "AssetRef",
    "AttesterError",
    "BrokerClient",
    "BrokerError",
    "BrokerUnavailableError",
    "CollectionError",
    "Collector",
    "ConfigfsTsm",
    "Devices",
    "GrantFile",
    "Lease",
    "LeaseEndedError",
    "LeaseKeeper",
    "LeaseTerms",
    "NoDevices",
    "NodeCollector",
    "Nscq",
    "Nvml",
    "Obligation",
    "ObligationError",
    "Output",
    "Passport",
    "Reason",
    "Receipt",
    "SealedReader",
    "SignedGrant",
    "TlsMaterial",
    "acquire",
    "appraise",
    "register_output",
]

_HOMES: Final = {
    "AccessDeniedError": "attester.errors",
    "AssetRef": "keystead.binding",
    "AttesterError": "attester.errors",
    "BrokerClient": "attester.client",
    "BrokerError": "attester.errors",
    "BrokerUnavailableError": "attester.errors",
    "CollectionError": "attester.errors",
    "Collector": "attester.collect.collector",
    "ConfigfsTsm": "attester.collect.configfs_tsm",
    "Devices": "attester.collect.collector",
    "GrantFile": "attester.grant_file",
    "Lease": "attester.lease",
    "LeaseEndedError": "attester.errors",
    "LeaseKeeper": "attester.keeper",
    "LeaseTerms": "attester.lease",
    "NoDevices": "attester.collect.collector",
    "NodeCollector": "attester.collect.collector",
    "Nscq": "attester.collect.nscq",
    "Nvml": "attester.collect.nvml",
    "Obligation": "attester.lease",
    "ObligationError": "attester.errors",
    "Output": "attester.output",
    "Passport": "attester.passport",
    "Reason": "attester.errors",
    "Receipt": "attester.lease",
    "SealedReader": "sealed.open",
    "SignedGrant": "attester.handshake",
    "TlsMaterial": "attester.client",
    "acquire": "attester.lease",
    "appraise": "attester.passport",
    "register_output": "attester.output",
}


def __getattr__(name: str) -> object:
    """Import a name of the SDK when it is first used (PEP 562)."""
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(importlib.import_module(home), name)
