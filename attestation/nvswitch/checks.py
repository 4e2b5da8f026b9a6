"""Every rule that NVSwitch evidence is held to, with those of chains, manifests and OCSP responses."""

from __future__ import annotations

from typing import Final

from attestation import ocsp, x509
from attestation.findings import Check, Severity
from attestation.rim import checks as rim_checks

_SPDM = "DMTF DSP0274 1.1.0, section 10.11"
_DICE = "TCG DICE Attestation Architecture 1.1, section 6.1"
_NVIDIA = "NVIDIA attestation SDK 1.x"
_CHAIN = "NVIDIA device certificates as published (no public document)"
_SAME_SWITCH = "The evidence mixes two switches; collect evidence and certificate chain from the same one."

TRAILING_BYTE: Final = Check(
    "NVSWITCH_TRAILING_BYTE",
    "nothing follows the signature",
    "evidence length",
    _SPDM,
    "Cut the evidence to the length that the driver returned; production refuses longer evidence.",
    Severity.INFORM,
)
SIGNATURE: Final = Check(
    "NVSWITCH_SIGNATURE",
    "the leaf's key signed request and response",
    "Signature",
    f"{_SPDM}.2",
    "The evidence was altered, or another switch made it; collect evidence and certificate chain from the same one.",
)
NONCE: Final = Check(
    "NVSWITCH_NONCE",
    "the request carries the verifier's nonce",
    "GET_MEASUREMENTS Nonce",
    f"{_SPDM}.1",
    "Collect the evidence again with the verifier's nonce, from the switch itself.",
)
NONCE_NOT_COMPARED: Final = Check(
    "NVSWITCH_NONCE_NOT_COMPARED",
    "the verifier gave a nonce to compare with",
    "GET_MEASUREMENTS Nonce",
    f"{_SPDM}.1",
    "Give the nonce that was sent to the device: without it the evidence may be a replay.",
    Severity.INFORM,
)
OPERATION: Final = Check(
    "NVSWITCH_ALL_MEASUREMENTS",
    "every measurement was asked for, and SHA-384 digests came",
    "GET_MEASUREMENTS Param2, MeasurementRecord",
    f"{_SPDM}.1",
    "Collect the evidence through the driver's attestation call; it asks for every measurement.",
)
LEAF_FWID: Final = Check(
    "NVSWITCH_LEAF_FWID",
    "the leaf states the firmware's identity",
    "FWID",
    f"{_DICE}.1",
    "Collect the certificate chain from the switch again; every LS10 leaf states it.",
)
FWID_NOT_REPORTED: Final = Check(
    "NVSWITCH_FWID_NOT_REPORTED",
    "the evidence states the firmware's identity",
    "FWID",
    f"{_DICE}.1, and {_NVIDIA}",
    "Nothing to do: no LS10 firmware reports it. The key that signs is made for the firmware in the leaf.",
    Severity.INFORM,
)
FWID: Final = Check(
    "NVSWITCH_FWID",
    "the firmware identity in the evidence is the one in the leaf",
    "FWID",
    f"{_DICE}.1, and {_NVIDIA}",
    "The chain is from another boot or another switch; collect evidence and certificate chain together.",
)
DEVICE_KEY: Final = Check(
    "NVSWITCH_DEVICE_KEY",
    "the leaf repeats the key of the BROM certificate that issued it",
    "CompositeDeviceID deviceID",
    _CHAIN,
    "The leaf is not this switch's; collect the certificate chain from the switch again.",
)
FIRMWARE_STATE: Final = Check(
    "NVSWITCH_FIRMWARE_STATE",
    "the firmware is not in a debug, recovery or insecure state",
    "DiceTcbInfo flags",
    f"{_DICE}.1",
    "Reset the switch with production firmware and leave developer mode.",
)
IDENTITY: Final = Check(
    "NVSWITCH_IDENTITY",
    "the BROM certificate names a switch: 50 and its PDI",
    "BROM subject serialNumber",
    _CHAIN,
    "The chain is not a switch's (GPUs have 41 and their PDI); send the switch's own.",
)
PDI: Final = Check(
    "NVSWITCH_PDI",
    "the signed PDI is the certified one",
    "SWITCH_PDI",
    f"{_NVIDIA}; {_CHAIN}",
    _SAME_SWITCH,
)
PRODUCT_NAMES: Final = Check(
    "NVSWITCH_PRODUCT_NAMES",
    "certificates name one chip",
    "subject commonName, device information",
    _CHAIN,
    _SAME_SWITCH,
)
PRODUCT: Final = Check(
    "NVSWITCH_PRODUCT",
    "the chip is one that the reference values allow",
    "subject commonName",
    _CHAIN,
    "Use a switch that the reference values allow, or add this chip to them.",
)
LOCKED: Final = Check(
    "NVSWITCH_LOCKED",
    "the switch's configuration is locked",
    "LOCK_STATUS",
    _NVIDIA,
    "Start the fabric manager in its confidential-computing mode; it locks the switches. NVIDIA documents the field by "
    "its name alone.",
    Severity.INFORM,
)
GPUS: Final = Check(
    "NVSWITCH_GPUS",
    "some port of the switch leads to a GPU that the evidence names",
    "GPU_LINK_CONN",
    _NVIDIA,
    "Attest again when the fabric is up.",
)
BIOS: Final = Check(
    "NVSWITCH_BIOS",
    "the BIOS is one that the reference values allow",
    "VBIOS_VERSION",
    _NVIDIA,
    "Install a BIOS that the reference values allow, then attest again.",
)
VERSIONS_NOT_APPRAISED: Final = Check(
    "NVSWITCH_VERSIONS_NOT_APPRAISED",
    "reference values name the BIOS versions that are allowed",
    "VBIOS_VERSION",
    _NVIDIA,
    "List the allowed versions in the reference values.",
    Severity.INFORM,
)
MEASUREMENT: Final = Check(
    "NVSWITCH_MEASUREMENT",
    "each pinned measurement is one of its reference values",
    "MeasurementRecord",
    f"{_SPDM}.2",
    "Install a BIOS that the reference values allow, then attest again.",
)
MEASUREMENTS_NOT_APPRAISED: Final = Check(
    "NVSWITCH_MEASUREMENTS_NOT_APPRAISED",
    "every measurement has a reference value, from a manifest (RIM) or pinned",
    "MeasurementRecord",
    f"{_SPDM}.2",
    "Give the manifest of this BIOS: what has no reference value is signed by the switch but compared with nothing.",
    Severity.INFORM,
)
REVOCATION_NOT_CHECKED: Final = Check(
    "NVSWITCH_REVOCATION_NOT_CHECKED",
    "OCSP responses were given, so that a revoked certificate is told from a good one",
    "OCSP",
    "RFC 6960",
    "Import OCSP responses; without them keep a list of revoked device identities in the enrolment.",
    Severity.INFORM,
)

CHECKS: Final = (
    *x509.CHECKS,
    *rim_checks.CHECKS,
    *ocsp.CHECKS,
    TRAILING_BYTE,
    SIGNATURE,
    NONCE,
    NONCE_NOT_COMPARED,
    OPERATION,
    LEAF_FWID,
    FWID_NOT_REPORTED,
    FWID,
    DEVICE_KEY,
    FIRMWARE_STATE,
    IDENTITY,
    PDI,
    PRODUCT_NAMES,
    PRODUCT,
    LOCKED,
    GPUS,
    BIOS,
    VERSIONS_NOT_APPRAISED,
    MEASUREMENT,
    MEASUREMENTS_NOT_APPRAISED,
    REVOCATION_NOT_CHECKED,
)
"""Every rule, for the registry."""
