"""The rules that join the devices of one node: about binding, mode and topology."""

from __future__ import annotations

from typing import Final

from attestation.findings import Check, Severity

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

_PPCIE: Final = "NVIDIA attestation SDK 1.x, protected PCIe; certified identities as published (no public document)"
_WHOLE_NODE: Final = "Send the evidence of every GPU and switch of this node and of no other, when the fabric is up."

GPU_MODE = Check(
    "NODE_GPU_MODE",
    "all GPUs of the node are in one confidential-computing mode",
    "FEATURE_FLAG, PROTECTED_PCIE_STATUS",
    "NVIDIA attestation SDK 1.x",
    "Set the same mode on every GPU (nvidia-smi conf-compute) and restart them.",
)
FABRIC_DECLARED = Check(
    "NODE_FABRIC_DECLARED",
    "reference values say what a protected-PCIe node is built of",
    "fabric",
    _PPCIE,
    "Declare it in the reference values: [fabric] gpus = 8, switches = 4. Without it the topology is not proven.",
    Severity.INFORM,
)
FABRIC_COUNT = Check(
    "NODE_FABRIC_COUNT",
    "there are as many GPUs and switches with identities of their own as declared",
    "identity",
    _PPCIE,
    _WHOLE_NODE,
)
FABRIC_SWITCHES = Check(
    "NODE_FABRIC_SWITCHES",
    "the GPU reaches the node's switches and no others",
    "SWITCH_PDI",
    _PPCIE,
    _WHOLE_NODE,
)
FABRIC_GPUS = Check(
    "NODE_FABRIC_GPUS",
    "the switch reaches the node's GPUs and no others",
    "GPU_LINK_CONN",
    _PPCIE,
    _WHOLE_NODE,
)

CHECKS: Final[tuple[Check, ...]] = (
    RUNTIME_DATA,
    DEVICE_COUNT,
    DEVICE_DIGEST,
    SLOT,
    IDENTITY_UNIQUE,
    GPU_MODE,
    FABRIC_DECLARED,
    FABRIC_COUNT,
    FABRIC_SWITCHES,
    FABRIC_GPUS,
)
"""All of them, for the registry."""
