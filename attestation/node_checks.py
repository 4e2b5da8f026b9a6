"""The rules that join the devices of one node: every one of them is about binding."""

from __future__ import annotations

from typing import Final

from attestation.findings import Check

_PROTOCOL: Final = "docs/protocol.md, runtime data"
_AGAIN: Final = (
    "Attest again, all devices with the nonce of this request, and send them in the order of the runtime data."
)

RUNTIME_DATA = Check(
    "NODE_RUNTIME_DATA",
    "the CPU evidence is authentic and vouches for these runtime data",
    "REPORT_DATA",
    _PROTOCOL,
    "Attest again with the runtime data of this request.",
)
DEVICE_COUNT = Check(
    "NODE_DEVICE_COUNT",
    "the runtime data vouch for as many devices as there are",
    "runtime_data.devices",
    _PROTOCOL,
    _AGAIN,
)
DEVICE_DIGEST = Check(
    "NODE_DEVICE_DIGEST",
    "the runtime data vouch for this very evidence of the device",
    "runtime_data.devices",
    _PROTOCOL,
    _AGAIN,
)
SLOT = Check(
    "NODE_SLOT",
    "each device has a slot of its kind, and no two have the same",
    "evidence.slot",
    "draft-ietf-rats-ear, submods; docs/protocol.md, device evidence",
    "Name the devices cpu0, gpu0, gpu1 and so on, each once.",
)
IDENTITY_UNIQUE = Check(
    "NODE_IDENTITY_UNIQUE",
    "no two devices of the node are the same hardware",
    "identity",
    "RFC 9334, section 3.3 (composite device)",
    "Send each device's own evidence once; the same device twice hides a missing one.",
)

CHECKS: Final[tuple[Check, ...]] = (RUNTIME_DATA, DEVICE_COUNT, DEVICE_DIGEST, SLOT, IDENTITY_UNIQUE)
"""All of them, for the registry."""
