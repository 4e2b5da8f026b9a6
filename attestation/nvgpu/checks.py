"""Every rule that NVIDIA GPU evidence is held to; the chain's own are `attestation.x509.CHECKS`."""

from __future__ import annotations

from typing import Final

from attestation import ocsp, x509
from attestation.findings import Check, Severity
from attestation.rim import checks as rim_checks

_SPDM = "DMTF DSP0274 1.1.0, section 10.11"
_DICE = "TCG DICE Attestation Architecture 1.1, section 6.1"
_NVIDIA = "NVIDIA attestation SDK 1.x"
_CHAIN = "NVIDIA device certificates as published (no public document)"
_ASK_AGAIN = "Collect the evidence again with the verifier's nonce, from the GPU itself."
_UPDATE = "Install a driver and VBIOS that the reference values allow, then attest again."

TRAILING_BYTE: Final = Check(
    "NVGPU_TRAILING_BYTE",
    "nothing follows the signature",
    "evidence length",
    _SPDM,
    "Cut the evidence to the length that the driver returned; production refuses longer evidence.",
    Severity.INFORM,
)
SIGNATURE: Final = Check(
    "NVGPU_SIGNATURE",
    "the leaf's key signed request and response",
    "Signature",
    f"{_SPDM}.2",
    "The evidence was altered, or another device made it; collect evidence and certificate chain from the same GPU.",
)
NONCE: Final = Check(
    "NVGPU_NONCE",
    "the request carries the verifier's nonce",
    "GET_MEASUREMENTS Nonce",
    f"{_SPDM}.1",
    _ASK_AGAIN,
)
NONCE_NOT_COMPARED: Final = Check(
    "NVGPU_NONCE_NOT_COMPARED",
    "the verifier gave a nonce to compare with",
    "GET_MEASUREMENTS Nonce",
    f"{_SPDM}.1",
    "Give the nonce that was sent to the device: without it the evidence may be a replay.",
    Severity.INFORM,
)
OPERATION: Final = Check(
    "NVGPU_ALL_MEASUREMENTS",
    "every measurement was asked for, and SHA-384 digests came",
    "GET_MEASUREMENTS Param2, MeasurementRecord",
    f"{_SPDM}.1",
    "Collect the evidence through the driver's attestation call; it asks for every measurement.",
)
FWID_PRESENT: Final = Check(
    "NVGPU_FWID_PRESENT",
    "evidence and leaf both state the firmware's identity",
    "FWID",
    f"{_DICE}.1, and {_NVIDIA}",
    "Install driver 550 or newer: older ones do not report the FWID.",
)
FWID: Final = Check(
    "NVGPU_FWID",
    "the firmware identity in the evidence is the one in the leaf",
    "FWID",
    f"{_DICE}.1, and {_NVIDIA}",
    "The chain is from another boot or another GPU; collect evidence and certificate chain together.",
)
DEVICE_KEY: Final = Check(
    "NVGPU_DEVICE_KEY",
    "the leaf repeats the key of the BROM certificate that issued it",
    "CompositeDeviceID deviceID",
    _CHAIN,
    "The leaf is not this GPU's; collect the certificate chain from the GPU again.",
)
FIRMWARE_STATE: Final = Check(
    "NVGPU_FIRMWARE_STATE",
    "the firmware is not in a debug, recovery or insecure state",
    "DiceTcbInfo flags",
    f"{_DICE}.1",
    "Reset the GPU with production firmware and leave developer mode.",
)
IDENTITY: Final = Check(
    "NVGPU_IDENTITY",
    "the BROM certificate names a GPU: 41 and its PDI",
    "BROM subject serialNumber",
    _CHAIN,
    "The chain is not a GPU's (NVSwitches have 50 and their PDI); send the GPU's own.",
)
PRODUCT_NAMES: Final = Check(
    "NVGPU_PRODUCT_NAMES",
    "certificates and evidence name the same chip",
    "subject commonName, device information, CHIP_INFO",
    _CHAIN,
    "The evidence mixes two devices; collect evidence and certificate chain from the same GPU.",
)
PRODUCT: Final = Check(
    "NVGPU_PRODUCT",
    "the chip is one that the reference values allow",
    "subject commonName",
    _CHAIN,
    "Use a GPU that the reference values allow, or add this chip to them.",
)
MODE_KNOWN: Final = Check(
    "NVGPU_MODE_KNOWN",
    "feature flag and protected-PCIe status state one known mode",
    "FEATURE_FLAG, PROTECTED_PCIE_STATUS",
    _NVIDIA,
    "This release does not know the mode; a newer one may.",
)
MODE: Final = Check(
    "NVGPU_MODE",
    "the confidential-computing mode is one that the reference values allow",
    "FEATURE_FLAG, PROTECTED_PCIE_STATUS",
    _NVIDIA,
    "Set the mode on the host (nvidia-smi conf-compute) and restart the GPU.",
)
SWITCHES: Final = Check(
    "NVGPU_SWITCHES",
    "in protected-PCIe mode the evidence lists the switches behind the GPU",
    "SWITCH_PDI",
    _NVIDIA,
    "Attest again when the fabric is up.",
)
DRIVER: Final = Check(
    "NVGPU_DRIVER",
    "the driver is one that the reference values allow",
    "DRIVER_VERSION",
    _NVIDIA,
    _UPDATE,
)
VBIOS: Final = Check(
    "NVGPU_VBIOS",
    "the VBIOS is one that the reference values allow",
    "VBIOS_VERSION",
    _NVIDIA,
    _UPDATE,
)
VERSIONS_NOT_APPRAISED: Final = Check(
    "NVGPU_VERSIONS_NOT_APPRAISED",
    "reference values name the drivers and VBIOS versions that are allowed",
    "DRIVER_VERSION, VBIOS_VERSION",
    _NVIDIA,
    "List the allowed versions in the reference values.",
    Severity.INFORM,
)
MEASUREMENT: Final = Check(
    "NVGPU_MEASUREMENT",
    "each pinned measurement is one of its reference values",
    "MeasurementRecord",
    f"{_SPDM}.2",
    _UPDATE,
)
MEASUREMENTS_NOT_APPRAISED: Final = Check(
    "NVGPU_MEASUREMENTS_NOT_APPRAISED",
    "every measurement has a reference value, from a manifest (RIM) or pinned",
    "MeasurementRecord",
    f"{_SPDM}.2",
    "Give the manifests of this driver and VBIOS, and pin in the reference values what no manifest covers: what has no "
    "reference value is signed by the GPU but compared with nothing.",
    Severity.INFORM,
)
REVOCATION_NOT_CHECKED: Final = Check(
    "NVGPU_REVOCATION_NOT_CHECKED",
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
    FWID_PRESENT,
    FWID,
    DEVICE_KEY,
    FIRMWARE_STATE,
    IDENTITY,
    PRODUCT_NAMES,
    PRODUCT,
    MODE_KNOWN,
    MODE,
    SWITCHES,
    DRIVER,
    VBIOS,
    VERSIONS_NOT_APPRAISED,
    MEASUREMENT,
    MEASUREMENTS_NOT_APPRAISED,
    REVOCATION_NOT_CHECKED,
)
"""Every rule, for the registry."""
