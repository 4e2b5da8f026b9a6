"""Every rule that reference integrity manifests are held to, and what they hold a device's measurements to."""

from __future__ import annotations

from typing import Final

from attestation.findings import Check, Severity

_SWID = "ISO/IEC 19770-2:2015, and NVIDIA attestation SDK 1.x"
_XMLDSIG = "W3C XML Signature 1.1, section "
_FETCH_AGAIN = "Fetch the manifest from NVIDIA's RIM service again; it was altered, or is not one."
_OTHER_SOFTWARE = "Install a driver and firmware that NVIDIA signed reference values for, then attest again."

DOCUMENT: Final = Check(
    "RIM_DOCUMENT",
    "the manifest is bounded XML without document type, entities, comments or other encodings",
    "RIM",
    "XML 1.0, fifth edition; W3C XML Signature Best Practices, sections 2.1 and 3.1",
    _FETCH_AGAIN,
)
SIGNATURE_FORM: Final = Check(
    "RIM_SIGNATURE_FORM",
    "exactly one enveloped ECDSA P-384 signature covers the whole manifest",
    "RIM Signature",
    f"{_XMLDSIG}4 to 6",
    _FETCH_AGAIN,
)
DIGEST: Final = Check(
    "RIM_DIGEST",
    "the manifest is the one that was signed",
    "RIM Signature DigestValue",
    f"{_XMLDSIG}3.2.1",
    _FETCH_AGAIN,
)
CHAIN: Final = Check(
    "RIM_CHAIN",
    "the signer's chain is sound and ends in a pinned RIM root",
    "RIM Signature X509Data",
    "RFC 5280, section 6.1",
    "The manifest is not of the vendor whose RIM root is pinned; check which trust anchors are configured.",
)
SIGNATURE: Final = Check(
    "RIM_SIGNATURE",
    "the leaf of the signer's chain signed the manifest",
    "RIM Signature SignatureValue",
    f"{_XMLDSIG}3.2.2",
    _FETCH_AGAIN,
)
CONTENT: Final = Check(
    "RIM_CONTENT",
    "the manifest states product, version and whole measurements, at least one of them active",
    "RIM Meta, Payload",
    _SWID,
    _FETCH_AGAIN,
)
SIGNER_VALIDITY: Final = Check(
    "RIM_SIGNER_VALIDITY",
    "the signer's chain is valid at the time of the appraisal",
    "RIM Signature X509Data",
    "RFC 5280, section 6.1.3 (a) (2)",
    "Fetch the manifest again: NVIDIA signs it anew. Until then a grace period in the reference values may bridge it.",
)
SIGNER_GRACE: Final = Check(
    "RIM_SIGNER_GRACE",
    "no signer's certificate had to be accepted after it expired",
    "RIM Signature X509Data",
    "RFC 5280, section 6.1.3 (a) (2)",
    "Fetch the manifest again before the grace period of the reference values ends.",
    Severity.INFORM,
)
VERSION: Final = Check(
    "RIM_VERSION",
    "one of the given manifests is for the version that the device runs",
    "RIM colloquialVersion",
    _SWID,
    "Fetch the manifest of this identifier, or install a version that a given manifest is for.",
)
OTHER_DEVICE: Final = Check(
    "RIM_OTHER_DEVICE",
    "every given manifest is for this kind of device",
    "RIM product",
    _SWID,
    "Nothing to do where one set of manifests serves devices of several kinds; else give this device's own.",
    Severity.INFORM,
)
CONFLICT: Final = Check(
    "RIM_CONFLICT",
    "no measurement is active in two manifests",
    "RIM Resource index",
    "NVIDIA attestation SDK 1.x",
    _FETCH_AGAIN,
)
MEASUREMENT: Final = Check(
    "RIM_MEASUREMENT",
    "each measurement is one of the manifest's reference values",
    "MeasurementRecord",
    "DMTF DSP0274 1.1.0, section 10.11.2, and NVIDIA attestation SDK 1.x",
    _OTHER_SOFTWARE,
)

CHECKS: Final = (
    DOCUMENT,
    SIGNATURE_FORM,
    DIGEST,
    CHAIN,
    SIGNATURE,
    CONTENT,
    SIGNER_VALIDITY,
    SIGNER_GRACE,
    VERSION,
    OTHER_DEVICE,
    CONFLICT,
    MEASUREMENT,
)
"""Every rule, for the registry."""
