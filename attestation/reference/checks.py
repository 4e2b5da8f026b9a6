"""The rules that every scheme's evidence is held to after its own: who may pass, and published advisories."""

from __future__ import annotations

from typing import Final

from attestation.findings import Check, Severity

_RATS: Final = "RFC 9334, section 8.3 (reference values)"
_LISTS: Final = "docs/reference-values.md, device lists"
_TABLE: Final = "docs/reference-values.md, advisories"
_ENFORCE: Final = "Read the vendor's bulletin; to refuse such platforms set enforced = true in a table of your own."
_REPLACE: Final = "Replace the hardware, or name the chip in devices.trusted_chips if you can vouch for its custody."
_RENEW: Final = "Get the issuer's current table, or declare advisories_grace in the reference values."

REFERENCE_WINDOW = Check(
    "REFERENCE_VALUES_WINDOW",
    "the reference values are in force at the appraisal's time",
    "about.issued and about.expires",
    _RATS,
    "Issue reference values that are in force now, with a higher serial, and sign them.",
)
IDENTITY_DENIED = Check(
    "IDENTITY_DENIED",
    "the device is not on the operator's deny list",
    "identity",
    _LISTS,
    "Take the device out of service; whoever denied it has stated the reason.",
)
IDENTITY_HIDDEN = Check(
    "IDENTITY_HIDDEN",
    "the device names itself where some devices are denied",
    "identity",
    _LISTS,
    "Turn MASK_CHIP_ID off on the host: a device that hides its identity may be a denied one.",
)
IDENTITY_NOT_ALLOWED = Check(
    "IDENTITY_NOT_ALLOWED",
    "the device proves an identity of the operator's allow list",
    "identity",
    _LISTS,
    "Add the device to devices.allowed after having inspected it, or keep it out.",
)
SNP_ADVISORY_UNMET = Check(
    "SNP_ADVISORY_UNMET",
    "the platform has what a published advisory asks for",
    "advisory",
    _TABLE,
    "Install the firmware or microcode or change the settings that the advisory names, then attest again.",
)
SNP_ADVISORY_NOT_ENFORCED = Check(
    "SNP_ADVISORY_NOT_ENFORCED",
    "the platform has what an advisory asks for that the table does not enforce",
    "advisory",
    _TABLE,
    _ENFORCE,
    Severity.INFORM,
)
SNP_PRODUCT_DISTRUSTED = Check(
    "SNP_PRODUCT_DISTRUSTED",
    "no advisory distrusts the product, or this chip is trusted in spite of it",
    "product",
    _TABLE,
    _REPLACE,
)
SNP_ADVISORIES_STALE = Check(
    "SNP_ADVISORIES_STALE",
    "the table of advisories is one of today: issued, and not past its next update",
    "advisories",
    _TABLE,
    _RENEW,
)
SNP_ADVISORIES_NONE = Check(
    "SNP_ADVISORIES_NONE",
    "a table of advisories was given",
    "advisories",
    _TABLE,
    "Name one (attestation.advisories, --advisories): without it the minima of the reference values hold alone.",
    Severity.INFORM,
)
NVIDIA_ADVISORY_UNMET = Check(
    "NVIDIA_ADVISORY_UNMET",
    "the platform has what a published advisory asks for",
    "advisory",
    _TABLE,
    "Install the driver or firmware or change the settings that the advisory names, then attest again.",
)
NVIDIA_ADVISORY_NOT_ENFORCED = Check(
    "NVIDIA_ADVISORY_NOT_ENFORCED",
    "the platform has what an advisory asks for that the table does not enforce",
    "advisory",
    _TABLE,
    _ENFORCE,
    Severity.INFORM,
)
NVIDIA_PRODUCT_DISTRUSTED = Check(
    "NVIDIA_PRODUCT_DISTRUSTED",
    "no advisory distrusts the product, or this chip is trusted in spite of it",
    "product",
    _TABLE,
    _REPLACE,
)
NVIDIA_ADVISORIES_STALE = Check(
    "NVIDIA_ADVISORIES_STALE",
    "the table of advisories is one of today: issued, and not past its next update",
    "advisories",
    _TABLE,
    _RENEW,
)

CHECKS: Final[tuple[Check, ...]] = (
    REFERENCE_WINDOW,
    IDENTITY_DENIED,
    IDENTITY_HIDDEN,
    IDENTITY_NOT_ALLOWED,
    SNP_ADVISORY_UNMET,
    SNP_ADVISORY_NOT_ENFORCED,
    SNP_PRODUCT_DISTRUSTED,
    SNP_ADVISORIES_STALE,
    SNP_ADVISORIES_NONE,
    NVIDIA_ADVISORY_UNMET,
    NVIDIA_ADVISORY_NOT_ENFORCED,
    NVIDIA_PRODUCT_DISTRUSTED,
    NVIDIA_ADVISORIES_STALE,
)
"""All of them, for the registry."""
